"""One LLM with LoRA adapters, one per role: loading, chat template, sampling, log-probabilities."""

import logging

# On import this module warns that the package `kernels` is missing. That package downloads compiled code from the hub
# at run time, so this project goes without it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
