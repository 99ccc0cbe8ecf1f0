"""MemoryPlan: bytes of base, dense copy, adapters, optimizer, KV cache and activations, from the config alone.

No weights are loaded, so a plan for a 30B model takes seconds. All figures are in bytes. They assume conversations of
the full ``limits.context`` and one open call in each rollout. The memory of the process before it loads anything is not
included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from mgrpo_lightning.policy.cpu.onednn import multiplies
from mgrpo_lightning.policy.loading import Quantization, clear_load_error, load_config
from mgrpo_lightning.policy.logprobs import LOGITS
from mgrpo_lightning.policy.prefix_tree import LAID_OUT
from mgrpo_lightning.policy.sampling.prefill import PREFILL_TOKENS
from mgrpo_lightning.policy.supported import empty_model
from mgrpo_lightning.policy.widths import Widths, widths
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig

BLOCK = 64
"""Weights per quantisation scale. Double quantisation stores a scale in one byte, plus one float32 per 256 scales."""
HOLES = 0.1
"""Fragmentation of a CPU's heap, as a share of the activations (measured by ``benchmarks.speed.memory``)."""


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of one process in bytes, by purpose."""

    base: int
    """Frozen weights; 4-bit weights with their scales."""
    dense_copy: int
    """The unquantised copy of ``dense_copy``. Without a GPU also the packed weights (``policy/cpu/onednn.py``)."""
    adapters: int
    """LoRA matrices in float32, of frozen roles too, and their copies if the base computes in another type."""
    optimizer: int
    """Gradients and both Adam moments of the trained adapters."""
    cache: int
    """KV cache of all conversations of a step at full context, or its limit."""
    activations: int
    """Activations of the largest micro-batch for its backward pass, with one chunk of logits; or of a prefill, if that
    is larger. Attention copies the keys of a shared prefix for each row; without a GPU the plan counts them once and
    adds HOLES."""

    @property
    def total(self) -> int:
        """The sum. The KV cache stays allocated during an update, and freed memory counts as returned."""
        return sum(int(getattr(self, field.name)) for field in fields(self))


def meta_model(name: str) -> PreTrainedModel:
    """Build a base without weights, on the meta device.

    Args:
        name: ``pocket``, a folder, or a hub name.

    Raises:
        ConfigurationError: The model does not exist, is an adapter, has pickled weights only, or needs its own code.
    """
    config = load_config(name)
    with clear_load_error(name):
        return empty_model(config)


def adapter_parameters(model: PreTrainedModel, adapter: AdapterConfig) -> int:
    """Number of parameters of a LoRA adapter: rank x (inputs + outputs), summed over the target layers."""
    return sum(
        adapter.rank * (layer.in_features + layer.out_features)
        for name, layer in _linear_layers(model)
        if name.rpartition(".")[2] in adapter.target_modules
    )


def plan(
    roles: Mapping[str, RoleConfig],
    *,
    quantization: Quantization,
    compute_dtype: torch.dtype,
    dense_copy: bool,
    token_budget: int,
    gradient_checkpointing: bool,
    conversations: Mapping[str, int],
    on_gpu: bool,
    cache_bytes: int | None = None,
) -> MemoryPlan:
    """Plan the memory of one process.

    Args:
        roles: The role configurations of the team, by name.
        quantization: ``nf4`` or ``none``.
        compute_dtype: Type of activations, KV cache, and weights that are not 4-bit.
        dense_copy: Whether a dense copy of the linear layers is kept.
        token_budget: Size of a micro-batch in tokens.
        gradient_checkpointing: Whether an update keeps only the inputs of the decoder layers.
        conversations: Number of conversations open at the same time, by role.
        on_gpu: Whether the process computes on a GPU.
        cache_bytes: Limit for the KV cache of each role, in bytes; None: no limit.
    """
    models = {name: meta_model(name) for name in {role.base_model for role in roles.values()}}
    shapes = {name: widths(model) for name, model in models.items()}
    needs = partial(
        _activations,
        token_budget=token_budget,
        width=compute_dtype.itemsize,
        on_gpu=on_gpu,
        gradient_checkpointing=gradient_checkpointing,
    )
    width = compute_dtype.itemsize
    # A shared adapter counts once, for the role that owns it.
    owners = [name for name, role in roles.items() if role.adapter.shared_with is None]
    sizes = {name: adapter_parameters(models[roles[name].base_model], roles[name].adapter) for name in owners}
    trained = sum(size for name, size in sizes.items() if roles[name].trainable)
    return MemoryPlan(
        base=sum(_base_bytes(model, quantization, width) for model in models.values()),
        dense_copy=sum(_copy_bytes(model, compute_dtype, on_gpu) for model in models.values()) if dense_copy else 0,
        # float32 takes 4 bytes, a copy in a shorter compute type `width` more; gradient and two moments take 3 x 4.
        adapters=(4 + (width if width < 4 else 0)) * sum(sizes.values()),
        optimizer=12 * trained,
        cache=sum(
            _cache(shapes[role.base_model], conversations[name] * role.limits.context, width, cache_bytes)
            for name, role in roles.items()
        ),
        activations=max(needs(models[role.base_model], shapes[role.base_model], role) for role in roles.values()),
    )


def _linear_layers(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """The layers that bitsandbytes quantises: all linear layers except the LM head."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings():
            yield name, module


def _base_bytes(model: PreTrainedModel, quantization: Quantization, width: int) -> int:
    total = sum(parameter.numel() for parameter in model.parameters())
    if quantization == "none":
        return total * width
    quantised = sum(layer.weight.numel() for _, layer in _linear_layers(model))
    # One byte for each scale of BLOCK weights, and 4 bytes for each 256 scales; two 4-bit weights share a byte.
    scales = quantised // BLOCK + 4 * quantised // (BLOCK * 256)
    return (total - quantised) * width + quantised // 2 + scales


def _copy_bytes(model: PreTrainedModel, dtype: torch.dtype, on_gpu: bool) -> int:
    linear = sum(layer.weight.numel() for _, layer in _linear_layers(model))
    # The LM head has no copy, but DenseCopy packs it too.
    packed = linear + model.get_output_embeddings().weight.numel() if multiplies(dtype) and not on_gpu else 0
    return (linear + packed) * dtype.itemsize


def _cache(shape: Widths, tokens: int, width: int, bound: int | None) -> int:
    needed = tokens * shape.cached * width
    return needed if bound is None else min(needed, bound)


def _activations(
    model: PreTrainedModel,
    shape: Widths,
    role: RoleConfig,
    *,
    token_budget: int,
    width: int,
    on_gpu: bool,
    gradient_checkpointing: bool,
) -> int:
    """Bytes that one micro-batch keeps for its backward pass, or that one prefill needs, whichever is more.

    For each token a decoder layer keeps the numbers of ``widths`` and, for each LoRA layer, r float32 numbers between A
    and B. A norm computes in float32, so in a shorter type it keeps a float32 copy of its input. This includes the
    norms of queries and keys, if the base has them. On a GPU, attention with a mask copies keys and values for every
    query head, and a shared prefix for every row, at most LAID_OUT budgets; their gradients exist in one layer at a
    time. With checkpointing, only one layer at a time keeps all this; the other layers keep their inputs.
    """
    besides = len(role.adapter.target_modules) * role.adapter.rank * 4
    if width < 4:
        normed = any(name.endswith(".q_norm") for name, _ in model.named_modules())
        besides += 4 * (2 * shape.hidden + (shape.queries + shape.keys if normed else 0))
    laid_out = 2 * shape.queries * width * LAID_OUT if on_gpu else 0
    besides += laid_out
    # One chunk of logits, overwritten by their gradients; on a GPU also probabilities and gradients in float32.
    logits = (width + (3 * 4 if on_gpu else 0)) * LOGITS
    layers = [kept * width + besides for kept in shape.layers]
    largest = max(layers)
    kept = laid_out + (largest + len(layers) * shape.hidden * width if gradient_checkpointing else sum(layers))
    update = token_budget * kept + logits if role.trainable else 0
    needed = max(update, PREFILL_TOKENS * largest)
    return needed if on_gpu else int((1 + HOLES) * needed)
