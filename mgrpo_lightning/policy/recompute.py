"""Gradient checkpointing: a decoder layer's inner results are computed again in the backward pass instead of kept.

An update then computes the forward pass twice and keeps one hidden state a layer and token. The result is bitwise the
same: the base has no dropout to draw again.
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
    """Checkpoint every decoder layer in passes inside the block.

    The backward pass must run inside the block of ``Policy.active`` that the forward pass ran in: what is computed
    again needs the same adapter. Layers must not be checkpointed while sampling, where they would drop the cache.

    Args:
        model: The base; its layers checkpoint in train mode only, so they alone, and nothing inside them, enter it.

    Raises:
        ConfigurationError: The architecture has no layer that can be checkpointed.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigurationError(
            f"{type(model).__name__} has no layers that gradient checkpointing is known for.",
            hint="set `gradient_checkpointing: false` and a smaller token_budget.",
        )
    for layer in layers:
        layer.training = layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = _recompute  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.training = layer.gradient_checkpointing = False


def _recompute(function: Callable[..., Any], *inputs: Any) -> Any:
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
