"""Trains a LoRA adapter with PEFT and PyTorch on the CPU, for `rune bench train`.

Reads one line of JSON from standard input: the GGUF file, rank, tokens of a sequence, sequences of a batch, threads,
type of the numbers, and token ids. Prints one line of JSON when it is ready; then, for every line that it reads, runs
one step and prints the seconds that the step took and the peak of its resident memory in bytes.
"""

import json
import os
import sys
import time

job = json.loads(sys.stdin.readline())
os.environ["OMP_NUM_THREADS"] = str(job["threads"])
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
torch.set_num_threads(job["threads"])
torch.manual_seed(0)
folder, name = os.path.split(job["model"])
dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[job["type"]]
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=dtype)
model.config.use_cache = False
kinds = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
config = LoraConfig(
    r=job["rank"], lora_alpha=2 * job["rank"], target_modules=kinds, lora_dropout=0.0,
    bias="none", task_type="CAUSAL_LM",
)
model = get_peft_model(model, config)
if job["checkpointing"]:
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
model.train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
batch = torch.tensor(job["tokens"]).view(job["sequences"], job["length"])


def peak_bytes():
    """The most memory that this process has had, in bytes, since it was last asked to forget."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


print(json.dumps({"ready": True}), flush=True)
for _line in sys.stdin:
    started = time.perf_counter()
    loss = model(input_ids=batch, labels=batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "loss": loss.item(), "peak": peak_bytes()}), flush=True)
