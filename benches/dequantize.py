"""Writes the model of a GGUF file as a folder for transformers and vLLM: `dequantize.py MODEL.gguf FOLDER`."""

import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer

gguf, folder = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16)
# The weights are plain now; what says otherwise would be saved with them.
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.hf_quantizer = None
model.save_pretrained(folder)
tokenizer.save_pretrained(folder)
