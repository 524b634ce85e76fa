"""Merges LoRA adapters with PEFT on the CPU, for `rune bench merge`.

Reads one line of JSON from standard input: the modules with their outputs and inputs, number of adapters, rank, type of
the merge and threads. Prints one line of JSON when the adapters are in memory; then, for every line that it reads,
merges them and prints the seconds, the processor seconds and the peak of its resident memory in bytes.
"""

import json
import os
import sys
import time

job = json.loads(sys.stdin.readline())
os.environ["OMP_NUM_THREADS"] = str(job["threads"])
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import LoraConfig, get_peft_model

torch.set_num_threads(job["threads"])
torch.manual_seed(0)


class Model(torch.nn.Module):
    """The linear layers of a model. Their own weights are never touched, so they take no memory."""

    def __init__(self):
        super().__init__()
        for name, outputs, inputs in job["modules"]:
            layer = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs, bias=False)
            self.add_module(name.replace(".", "_"), layer)


names = [name.replace(".", "_") for name, _, _ in job["modules"]]
config = LoraConfig(r=job["rank"], lora_alpha=job["rank"], target_modules=names)
model = get_peft_model(Model(), config, adapter_name="a0")
for number in range(1, job["adapters"]):
    model.add_adapter(f"a{number}", config)
with torch.no_grad():
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            for part in (layer.lora_A, layer.lora_B):
                for matrix in part.values():
                    matrix.weight.normal_(0, 0.02)


def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def resident_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


before = resident_bytes()
print(json.dumps({"ready": True}), flush=True)
adapters = [f"a{number}" for number in range(job["adapters"])]
weights = [1 / job["adapters"]] * job["adapters"]
options = {"svd_rank": job["rank"]} if job["type"] == "svd" else {}
for number, _line in enumerate(sys.stdin):
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
    started, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        model.add_weighted_adapter(adapters, weights, f"merged{number}", combination_type=job["type"], **options)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    model.delete_adapter(f"merged{number}")
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak_bytes() - before}), flush=True)
