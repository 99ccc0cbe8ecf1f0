"""The memory a team needs, from its configuration alone: no weight is loaded, so a plan for a 30B model takes seconds.

Every figure is in bytes, for conversations at the full context of the team file's limits and one call at a time in each
rollout; what a process has before it loads anything is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from mgrpo_lightning.policy.cpu.onednn import multiplies
from mgrpo_lightning.policy.forest import LAID_OUT
from mgrpo_lightning.policy.loading import Quantization, clear_load_error, load_config
from mgrpo_lightning.policy.logprobs import LOGITS
from mgrpo_lightning.policy.sampling.transformers import PREFILL_TOKENS
from mgrpo_lightning.policy.supported import empty_model
from mgrpo_lightning.policy.widths import Widths, widths
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig

BLOCK = 64
"""Weights that share a quantisation scale; double quantisation stores it in one byte, and a float32 for 256 of them."""
HOLES = 0.1
"""Of the activations, what the holes between blocks of a CPU's heap add (measured by ``benchmarks.memory``)."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by what they are for."""

    base: int
    """Frozen weights, 4-bit ones with their scales."""
    dense_copy: int
    """What ``dense_copy`` keeps besides; without a GPU, with the packed weights of a CPU (``policy/cpu/onednn.py``)."""
    adapters: int
    """LoRA matrices in float32, frozen roles' too, and their copies where the base computes in another type."""
    optimizer: int
    """Gradients and both moments of the trained adapters."""
    cache: int
    """Keys and values of all conversations of a step at their full context, or their bound."""
    activations: int
    """What the backward pass of the largest micro-batch needs, logits of one chunk included, or a prefill if larger.
    Without a GPU, with HOLES, and with keys of a shared prefix, of which attention has a copy for each row, once."""

    @property
    def total(self) -> int:
        """All of it: the cache keeps its size while a role is updated, and what is freed is given back."""
        return sum(int(getattr(self, field.name)) for field in fields(self))


def meta_model(name: str) -> PreTrainedModel:
    """The architecture of a base without weights, on the meta device.

    Args:
        name: ``pocket``, a folder, or a hub name.

    Raises:
        ConfigurationError: There is no such model, or it is an adapter, a pickle or needs code of its own.
    """
    config = load_config(name)
    with clear_load_error(name):
        return empty_model(config)


def adapter_parameters(model: PreTrainedModel, adapter: AdapterConfig) -> int:
    """Parameters of a LoRA adapter: r (inputs + outputs) for every layer it targets.

    Args:
        model: The base.
        adapter: Rank and targets.
    """
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
    """The plan of one process.

    Args:
        roles: The team.
        quantization: ``nf4`` or ``none``.
        compute_dtype: Type of activations, cache, and weights that are not 4-bit.
        dense_copy: Whether a dense copy of the linear layers is kept.
        token_budget: Tokens of one micro-batch.
        gradient_checkpointing: Whether an update keeps the layers' inputs only.
        conversations: How many of each role are open at the same time.
        on_gpu: Whether it computes there.
        cache_bytes: Bound on the keys and values of each role.
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
    owners = [name for name, role in roles.items() if role.adapter.shared_with is None]
    sizes = {name: adapter_parameters(models[roles[name].base_model], roles[name].adapter) for name in owners}
    trained = sum(size for name, size in sizes.items() if roles[name].trainable)
    return MemoryPlan(
        base=sum(_base_bytes(model, quantization, width) for model in models.values()),
        dense_copy=sum(_copy_bytes(model, compute_dtype, on_gpu) for model in models.values()) if dense_copy else 0,
        adapters=(4 + (width if width < 4 else 0)) * sum(sizes.values()),
        optimizer=12 * trained,
        cache=sum(
            _cache(shapes[role.base_model], conversations[name] * role.limits.context, width, cache_bytes)
            for name, role in roles.items()
        ),
        activations=max(needs(models[role.base_model], shapes[role.base_model], role) for role in roles.values()),
    )


def _linear_layers(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """The layers that bitsandbytes quantises: all linear ones but the head."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings():
            yield name, module


def _base_bytes(model: PreTrainedModel, quantization: Quantization, width: int) -> int:
    total = sum(parameter.numel() for parameter in model.parameters())
    if quantization == "none":
        return total * width
    quantised = sum(layer.weight.numel() for _, layer in _linear_layers(model))
    scales = quantised // BLOCK + 4 * quantised // (BLOCK * 256)
    return (total - quantised) * width + quantised // 2 + scales


def _copy_bytes(model: PreTrainedModel, dtype: torch.dtype, on_gpu: bool) -> int:
    linear = sum(layer.weight.numel() for _, layer in _linear_layers(model))
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
    """What one micro-batch keeps for its backward pass, or one prefill needs.

    A decoder layer keeps what ``widths`` says and, for each adapted layer, the r numbers between the two LoRA matrices.
    A norm computes in float32: in a shorter type it keeps another copy of what it gets, those of queries and keys
    included where there are such. On a GPU attention with a mask keeps keys and values once for every head of the
    queries, and for every row that a shared prefix is laid out for, LAID_OUT budgets at most; their gradients are there
    in one layer at a time. With checkpointing, one layer at a time keeps all that, the others what enters them.
    """
    besides = len(role.adapter.target_modules) * role.adapter.rank * 4
    if width < 4:
        normed = any(name.endswith(".q_norm") for name, _ in model.named_modules())
        besides += 4 * (2 * shape.hidden + (shape.queries + shape.keys if normed else 0))
    laid_out = 2 * shape.queries * width * LAID_OUT if on_gpu else 0
    besides += laid_out
    # Logits of one chunk, later their gradients; on a GPU their probabilities and gradients in float32 too.
    logits = (width + (3 * 4 if on_gpu else 0)) * LOGITS
    layers = [kept * width + besides for kept in shape.layers]
    largest = max(layers)
    kept = laid_out + (largest + len(layers) * shape.hidden * width if gradient_checkpointing else sum(layers))
    update = token_budget * kept + logits if role.trainable else 0
    needed = max(update, PREFILL_TOKENS * largest)
    return needed if on_gpu else int((1 + HOLES) * needed)
