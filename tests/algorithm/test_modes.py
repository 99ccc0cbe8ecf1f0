"""duplicate_drop and weights: the collapsed form is the literal one, and in expectation the two modes are one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mgrpo_lightning.algorithm.advantages import group_advantages
from mgrpo_lightning.algorithm.alignment import AlignmentConfig, align, fill
from mgrpo_lightning.algorithm.coefficients import coefficients
from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.algorithm.objective import surrogate_loss


def gradient(theta: Tensor, rows: list[int], values: Tensor, shares: Tensor, config: ObjectiveConfig) -> Tensor:
    """Gradient at theta (T, n) of the loss of rows of T tokens each; a row may stand there many times."""
    leaf = theta.clone().requires_grad_()
    logprobs = leaf.log_softmax(dim=0)[:, rows].T.reshape(-1)
    behaviour = (theta + 0.1).log_softmax(dim=0)[:, rows].T.reshape(-1) + 0.05
    index = torch.repeat_interleave(torch.arange(len(rows)), len(theta))
    batch_tokens = float(shares.sum()) * len(theta)
    output = surrogate_loss(logprobs, behaviour, index, values, shares, config=config, batch_tokens=batch_tokens)
    (result,) = torch.autograd.grad(output.loss, leaf)
    return result


@given(
    counts=st.lists(st.integers(0, 9), min_size=2, max_size=5).filter(any),
    slots=st.integers(1, 6),
    seed=st.integers(0, 999),
    config=st.builds(
        ObjectiveConfig,
        ratio=st.sampled_from(["token", "sequence"]),
        reduction=st.sampled_from(["trajectory_mean", "token_mean"]),
    ),
)
def test_collapsed_gradient_equals_the_literal_one(
    counts: list[int], slots: int, seed: int, config: ObjectiveConfig
) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = sum(counts)
    rewards = torch.rand(n, generator=generator, dtype=torch.float64)
    theta = torch.randn(3, n, generator=generator, dtype=torch.float64)
    aligned = align(counts, AlignmentConfig("duplicate_drop", slots), seed)

    assert aligned.indices is not None
    starts = [sum(counts[:k]) for k in range(len(counts))]
    literal = [start + i for start, row in zip(starts, aligned.indices, strict=True) for i in row if i >= 0]
    ones = torch.ones(len(literal), dtype=torch.float64)
    literal_values = group_advantages(rewards[literal], ones, std_floor=1e-6).values

    weights = torch.tensor([m for row in aligned.multiplicity for m in row], dtype=torch.float64)
    kept = torch.nonzero(weights)[:, 0].tolist()
    shares = torch.tensor(coefficients([weights.tolist()])[0], dtype=torch.float64)
    assert shares.tolist() == pytest.approx([literal.count(i) / len(literal) for i in range(n)], rel=1e-15)
    values = group_advantages(rewards, weights, std_floor=1e-6).values

    collapsed_gradient = gradient(theta, kept, values[kept], shares[kept], config)
    literal_gradient = gradient(theta, literal, literal_values, ones / len(literal), config)
    torch.testing.assert_close(collapsed_gradient, literal_gradient, rtol=1e-10, atol=1e-12)


def outcomes(count: int, slots: int) -> Iterator[list[int]]:
    """Every equally likely way to fill the slots of one rollout."""
    sizes = [count] * (slots - count) if count <= slots else [count - i for i in range(slots)]
    for choices in itertools.product(*(range(size) for size in sizes)):
        left = iter(choices)
        yield fill(count, slots, lambda _i, _n, left=left: next(left))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("counts", "slots"), [([1, 2], 3), ([3, 1, 2], 2), ([0, 2, 4], 3), ([1, 1], 4), ([5, 2], 3), ([2, 3, 0, 1], 2)]
)
def test_with_a_fixed_baseline_both_modes_have_the_same_expected_gradient(counts: list[int], slots: int) -> None:
    generator = torch.Generator().manual_seed(0)
    n = sum(counts)
    values = torch.randn(n, generator=generator, dtype=torch.float64)
    theta = torch.randn(3, n, generator=generator, dtype=torch.float64)

    def of(multiplicity: list[float]) -> tuple[Tensor, Tensor]:
        shares = torch.tensor(coefficients([multiplicity])[0], dtype=torch.float64)
        return shares, gradient(theta, list(range(n)), values, shares, ObjectiveConfig())

    filled = [count for count in counts if count]
    every = [
        of([float(row.count(i)) for count, row in zip(filled, rows, strict=True) for i in range(count)])
        for rows in itertools.product(*(list(outcomes(count, slots)) for count in filled))
    ]
    weights = align(counts, AlignmentConfig("weights", slots), seed=0).multiplicity
    shares, expected = of([m for row in weights for m in row])
    torch.testing.assert_close(torch.stack([s for s, _ in every]).mean(0), shares, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.stack([g for _, g in every]).mean(0), expected, rtol=1e-10, atol=1e-13)
