"""Split a causal LM in two: hidden states without logits; final logits (scaling, soft cap) of chosen hidden states.

Trainer and sampler both use only these functions, so they compute the same numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mgrpo_lightning.errors import ConfigurationError

PART = 2**18
"""Number of logits that a CPU finishes at a time. The intermediate tensors then stay in the CPU's cache, and they are
small enough for the allocator to reuse their memory."""


def rows_of_part(logits: Tensor) -> int:
    """How many rows of these N x V logits to finish at a time: about PART logits on a CPU, all rows on a GPU."""
    return max(1, PART // logits.shape[-1]) if logits.is_cpu else max(1, len(logits))


def hidden_states(model: PreTrainedModel, ids: Tensor, **inputs: Any) -> Tensor:
    """Last hidden states, B x T x H, in the base's own compute type.

    Autocast is off here, so that the trainer's precision plugin cannot change the numbers that the sampler computed.
    """
    inputs.setdefault("use_cache", False)
    with torch.autocast(ids.device.type, enabled=False):
        hidden = model.get_decoder()(input_ids=ids, **inputs).last_hidden_state
    assert isinstance(hidden, Tensor)
    return hidden


def final_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits in float32 (float64 for a float64 model), with the model's own scaling and soft cap."""
    return finished_logits(model, raw_logits(model, hidden))


def raw_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Raw logits: the product of hidden states and the output embedding, in the type of the embedding."""
    with torch.autocast(hidden.device.type, enabled=False):
        product = model.get_output_embeddings()(hidden)
    assert isinstance(product, Tensor)
    return product


def finished_logits(model: PreTrainedModel, logits: Tensor) -> Tensor:
    """Final logits from rows of raw logits (``raw_logits``); see ``final_logits``."""
    # float32 before scaling and softmax: bfloat16 has 8 bits of precision, too few for log-probabilities.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    config = model.config.get_text_config()
    if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite
        logits = logits / divisor
    if (factor := getattr(config, "logit_scale", None)) is not None:  # Cohere
        logits = logits * factor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
        logits = torch.tanh(logits / cap) * cap
    assert isinstance(logits, Tensor)
    return logits


@torch.no_grad()
def check_lm_head(model: PreTrainedModel, name: str) -> None:
    """Require that ``final_logits`` of the hidden states equals the model's own logits, up to rounding.

    Raises:
        ConfigurationError: The architecture has some other step between its decoder and its logits.
    """
    ids = torch.arange(1, 5, device=model.device)[None]
    own = model(input_ids=ids, use_cache=False).logits.float()
    ours = final_logits(model, hidden_states(model, ids)).float()
    if not torch.allclose(own, ours, rtol=1e-2, atol=1e-2 * float(own.abs().max())):
        raise ConfigurationError(
            f"base_model {name!r} ({type(model).__name__}) changes its logits in an unknown way.",
            hint="use a Llama, Qwen, Mistral, Gemma, Granite or Cohere model.",
        )
