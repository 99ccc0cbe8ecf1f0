"""One LLM with adapters: loading, LoRA per role, log-probabilities, chat template, sampling."""

import logging

# On import it asks for a package that would fetch compiled code from the hub at run time; we do without.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
