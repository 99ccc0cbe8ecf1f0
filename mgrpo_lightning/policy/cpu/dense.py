"""DenseCopy: a dequantised copy of a base's linear layers with one adapter merged in, and the adapter's gradients.

A small 4-bit base spends much of its time dequantising the same weights and multiplying with the adapter's two small
matrices. A copy in the compute type, W' = W + s B A, needs neither. It takes the memory of one unquantised base. In
float32 on a CPU, sampling adds a second, packed one. The base and the adapter do not change (correctness.md 23, 31):
while the copy is selected, its layers replace the model's linear layers, and the other modules are the model's own.

The copy computes y = W' x. The adapter's gradients need only the layer's input x and the gradient dy of the output:
dA = s B^T dy x^T and dB = s dy (A x)^T. These equal the gradients of an adapter that is not merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from mgrpo_lightning.policy.cpu.onednn import packed, packed_product, product


class _Product(torch.autograd.Function):
    """y = W' x + bias, with gradients for x (T x inputs) and for the merged adapter's matrices A and B.

    A is r x inputs and B is outputs x r. Both are None if no adapter is merged into W'.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor | None, b: Tensor | None, scaling: float
    ) -> Tensor:
        # Only the adapter's gradients need x; without an adapter its memory can go.
        ctx.save_for_backward(x if a is not None else None, weight, a, b)
        ctx.scaling = scaling
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, Tensor | None, None]:
        x, weight, a, b = ctx.saved_tensors
        (dy,) = grads
        dx = product(dy, weight.T, None) if ctx.needs_input_grad[0] else None
        if x is None:
            return dx, None, None, None, None, None
        # Rank-r products only: the gradient of W' itself, dy^T x, would take as much memory as W'.
        narrow = (dy @ b).mul_(ctx.scaling)
        return dx, None, None, narrow.T @ x, dy.T @ (x @ a.T).mul_(ctx.scaling), None


class _DenseLinear(nn.Module):
    """A frozen dense linear layer, and the adapter that is merged into its weight, if any: A, B and the scaling s."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = bias
        self.adapter: tuple[Tensor, Tensor, float] | None = None
        self.packed: Tensor | None = None
        """The weight in oneDNN's layout, made at the first product without gradients."""

    def forward(self, input: Tensor) -> Tensor:
        """Multiply any number of tokens, ... x inputs; returns ... x outputs."""
        if torch.is_grad_enabled():
            a, b, scaling = self.adapter or (None, None, 1.0)
            flat: Tensor = _Product.apply(input.flatten(0, -2), self.weight, self.bias, a, b, scaling)  # type: ignore[no-untyped-call]
            return flat.view(*input.shape[:-1], -1)
        if self.packed is None:
            self.packed = packed(self.weight)
        if self.packed is None:
            return F.linear(input, self.weight, self.bias)
        return packed_product(input, self.packed, self.bias)


@dataclass(frozen=True)
class _Place:
    """One linear layer of the model and its dense replacement."""

    parent: nn.Module
    name: str
    layer: nn.Module
    dense: _DenseLinear
    copied: bool = True
    """True if the replacement has its own weight; False if it uses the layer's weight itself (the LM head)."""


class DenseCopy:
    """A dense copy of a base's linear layers, with the adapter merged in that was selected last.

    Args:
        model: The base, with or without adapters. The copy is made when an adapter is first selected.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._places: list[_Place] = []
        self._holds: tuple[str, tuple[int, ...]] | None = None

    @contextmanager
    def select(self, adapter: str) -> Iterator[None]:
        """Compute with the copy and ``adapter`` inside the block. The backward pass may run after the block.

        Args:
            adapter: The adapter's key in the LoRA layers. A layer without this adapter computes with the base alone.
        """
        if not self._places:
            self._places = list(_places(self._model))
        self._refresh(adapter)
        for place in self._places:
            place.parent._modules[place.name] = place.dense
        try:
            yield
        finally:
            for place in self._places:
                place.parent._modules[place.name] = place.layer

    @torch.no_grad()
    def _refresh(self, adapter: str) -> None:
        """Merge again if another adapter is selected or the adapter's values changed since the last merge."""
        # torch counts every in-place write in `_version`, so optimizer steps and loaded states both show here.
        updates = tuple(p._version for place in self._places for p in _matrices(place.layer, adapter))
        if self._holds == (adapter, updates):
            return
        for place in self._places:
            if not place.copied:
                continue
            # Start from the base's weights each time. Subtracting the old adapter instead would add up rounding errors.
            _dequantise(_base(place.layer).weight, out=place.dense.weight)
            place.dense.adapter = place.dense.packed = None
            matrices = _matrices(place.layer, adapter)
            if matrices:
                assert isinstance(place.layer, LoraLayer)
                a, b = matrices
                scaling = place.layer.scaling[adapter]
                place.dense.weight.add_((scaling * (b @ a)).to(place.dense.weight.dtype))
                place.dense.adapter = (a, b, scaling)
        self._holds = (adapter, updates)


def _places(model: PreTrainedModel) -> Iterator[_Place]:
    """Every layer with an adapter, every 4-bit layer without one, and the LM head, but no layers inside these."""
    head = model.get_output_embeddings()
    for parent in model.modules():
        if isinstance(parent, LoraLayer):
            continue
        for name, layer in parent.named_children():
            if isinstance(layer, LoraLayer | Linear4bit):
                base = _base(layer)
                weight = torch.empty(base.out_features, base.in_features, dtype=model.dtype, device=base.weight.device)
                yield _Place(parent, name, layer, _DenseLinear(weight, base.bias))
            elif layer is head:
                yield _Place(parent, name, layer, _DenseLinear(layer.weight, layer.bias), copied=False)


def _base(layer: nn.Module) -> nn.Linear:
    base = layer.base_layer if isinstance(layer, LoraLayer) else layer
    assert isinstance(base, nn.Linear)
    return base


def _matrices(layer: nn.Module, adapter: str) -> list[Tensor]:
    """The matrices A (r x inputs) and B (outputs x r) of a layer's adapter; empty if the layer has no such adapter."""
    if not isinstance(layer, LoraLayer) or adapter not in layer.lora_A:
        return []
    matrices = [layer.lora_A[adapter], layer.lora_B[adapter]]
    return [matrix.weight for matrix in matrices if isinstance(matrix, nn.Linear)]


def _dequantise(weight: Tensor, *, out: Tensor) -> None:
    state = getattr(weight, "quant_state", None)
    out.copy_(weight if state is None else dequantize_4bit(weight.data, state))
