"""Muon in fp32 for CPUs: momentum, orthogonalised per matrix by a Newton-Schulz iteration (Jordan 2024).

``torch.optim.Muon`` iterates in bf16, which a CPU without bf16 instructions multiplies a hundred times slower, and one
matrix at a time; here the matrices of one shape go together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95


def orthogonalised(matrices: Tensor) -> Tensor:
    """The matrices (N, R, C), in any scale, with all singular values brought to about 1."""
    wide = matrices.size(1) <= matrices.size(2)
    x: Tensor = matrices if wide else matrices.mT
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised; a step has the size that AdamW's would have at the same rate.

    Args:
        params: Matrices, in groups as for any optimizer.
        lr: Learning rate.
        weight_decay: Decoupled, times the rate.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient.

        Args:
            closure: Not supported.
        """
        assert closure is None, "the gradients are computed before"
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                moves = orthogonalised(torch.stack([self._momentum(parameter) for parameter in parameters]))
                # The root mean square of AdamW's steps is about 0.2 (Moonlight, arXiv 2502.16982).
                scale = 0.2 * max(shape) ** 0.5
                for parameter, move in zip(parameters, moves, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(group["lr"] * scale * move)

    def _momentum(self, parameter: Tensor) -> Tensor:
        """Update a matrix's momentum; what is returned looks one step ahead."""
        assert parameter.grad is not None
        momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(momentum, MOMENTUM)
