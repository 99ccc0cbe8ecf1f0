"""Gradient checkpointing: keep only the inputs of decoder layers, and recompute their activations in the backward pass.

An update then computes the forward pass twice and keeps one hidden state for each layer and token. The result is
bitwise the same, because the base has no dropout that would draw other random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from mgrpo_lightning.errors import ConfigurationError


@contextmanager
def recomputed_layers(model: PreTrainedModel) -> Iterator[None]:
    """Checkpoint every decoder layer in the forward passes of the block.

    The backward pass must run in the same ``Policy.active`` block as the forward pass, because it recomputes with the
    selected adapter. Do not sample inside this block: checkpointed layers drop the KV cache.

    Args:
        model: The base. Its decoder layers are set to train mode inside the block.

    Raises:
        ConfigurationError: The architecture has no layer that can be checkpointed.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigurationError(
            f"gradient checkpointing does not know the layers of {type(model).__name__}.",
            hint="set `gradient_checkpointing: false`, and lower token_budget.",
        )
    # transformers checkpoints a layer only in train mode. Set the flag of the layer alone: train() would also switch
    # the modules inside it.
    for layer in layers:
        layer.training = layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = _recompute  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.training = layer.gradient_checkpointing = False


def _recompute(function: Callable[..., Any], *inputs: Any) -> Any:
    # Nothing draws random numbers in these layers, so there is no generator state to save and restore.
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
