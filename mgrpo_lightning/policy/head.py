"""Both ends of a causal LM apart: hidden states without logits, and logits of chosen hidden states only.

Trainer and sampler use these functions alone, so that they compute the same numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mgrpo_lightning.errors import ConfigurationError

PART = 2**18
"""Logits that a CPU finishes together: what is made of them stays in its cache, and is small enough that the allocator
does not fetch new memory for it each time."""


def rows_of_part(logits: Tensor) -> int:
    """Rows of N x V logits to be finished together.

    Args:
        logits: On any device.
    """
    return max(1, PART // logits.shape[-1]) if logits.is_cpu else max(1, len(logits))


def hidden_states(model: PreTrainedModel, ids: Tensor, **inputs: Any) -> Tensor:
    """Last hidden states, B x T x H, in the base's own compute type.

    Autocast is switched off, so that the trainer computes what the sampler did, whatever its precision plugin says.
    """
    inputs.setdefault("use_cache", False)
    with torch.autocast(ids.device.type, enabled=False):
        hidden = model.get_decoder()(input_ids=ids, **inputs).last_hidden_state
    assert isinstance(hidden, Tensor)
    return hidden


def final_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits in float32 (float64 for a float64 model), with the model's own scaling and soft cap."""
    return finished_logits(model, head_product(model, hidden))


def head_product(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """What the output embedding makes of hidden states, in its own type: logits that are not finished."""
    with torch.autocast(hidden.device.type, enabled=False):
        product = model.get_output_embeddings()(hidden)
    assert isinstance(product, Tensor)
    return product


def finished_logits(model: PreTrainedModel, logits: Tensor) -> Tensor:
    """Logits of any rows of a ``head_product``; see ``final_logits``."""
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
def check_head(model: PreTrainedModel, name: str) -> None:
    """Require that ``final_logits`` of the hidden states are the model's own logits.

    Raises:
        ConfigurationError: The architecture does something else between its decoder and its logits.
    """
    ids = torch.arange(1, 5, device=model.device)[None]
    own = model(input_ids=ids, use_cache=False).logits.float()
    ours = final_logits(model, hidden_states(model, ids)).float()
    if not torch.allclose(own, ours, rtol=1e-2, atol=1e-2 * float(own.abs().max())):
        raise ConfigurationError(
            f"base_model {name!r} ({type(model).__name__}) changes its logits in a way this package does not know.",
            hint="take a Llama, Qwen, Mistral, Gemma, Granite or Cohere model.",
        )
