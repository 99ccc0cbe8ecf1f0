"""Random optimizer steps as flat tokens, and the loss of one as micro-batches: what the tests of the objective use."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.algorithm.objective import LossOutput, surrogate_loss

Ratio: TypeAlias = Literal["token", "sequence", "sequence_product"]
Reduction: TypeAlias = Literal["trajectory_mean", "token_mean"]
RATIOS: tuple[Ratio, ...] = ("token", "sequence", "sequence_product")
REDUCTIONS: tuple[Reduction, ...] = ("trajectory_mean", "token_mean")
KINDS = [
    *(ObjectiveConfig(ratio=r, reduction=m, kl=kl) for r, m, kl in itertools.product(RATIOS, REDUCTIONS, (0.0, 0.3))),
    *(ObjectiveConfig(kind="supervised", reduction=reduction) for reduction in REDUCTIONS),
]


@dataclass
class Step:
    """The tokens of one optimizer step, trajectory after trajectory."""

    lengths: list[int]
    logprobs: Tensor
    behaviour: Tensor
    proximal: Tensor
    reference: Tensor
    advantages: Tensor
    coefficients: Tensor

    @property
    def rows(self) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(self.lengths)), torch.tensor(self.lengths))

    @property
    def batch_tokens(self) -> float:
        return float((self.coefficients * torch.tensor(self.lengths)).sum())

    def loss(self, config: ObjectiveConfig, tokens: Tensor | None = None, **options: Any) -> LossOutput:
        """Loss of some of its tokens (all if not given) as one micro-batch."""
        tokens = torch.arange(len(self.rows)) if tokens is None else tokens
        rows, renumbered = self.rows[tokens].unique(return_inverse=True)
        if config.kl > 0:
            options["reference"] = self.reference[tokens]
        return surrogate_loss(
            self.logprobs[tokens],
            self.behaviour[tokens],
            renumbered,
            self.advantages[rows],
            self.coefficients[rows],
            config=config,
            batch_tokens=self.batch_tokens,
            **options,
        )

    def gradient(
        self, config: ObjectiveConfig, micro_batches: Sequence[Tensor | None] = (None,)
    ) -> tuple[float, Tensor]:
        self.logprobs.grad = None
        total = 0.0
        for tokens in micro_batches:
            output = self.loss(config, tokens)
            output.loss.backward()
            total += float(output.loss.detach())
        return total, torch.as_tensor(self.logprobs.grad).clone()


def make_step(seed: int, lengths: list[int], *, spread: float = 0.4) -> Step:
    generator = torch.Generator().manual_seed(seed)

    def normal(n: int) -> Tensor:
        return torch.randn(n, generator=generator, dtype=torch.float64)

    n = sum(lengths)
    behaviour = -normal(n).abs() - 0.1
    coefficients = normal(len(lengths)).abs() + 0.1
    return Step(
        lengths,
        (behaviour + spread * normal(n)).requires_grad_(),
        behaviour,
        behaviour + 0.1 * normal(n),
        behaviour + 0.3 * normal(n),
        normal(len(lengths)),
        coefficients / coefficients.sum(),
    )
