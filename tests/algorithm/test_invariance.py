"""How a step is cut and ordered must not matter."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.algorithm.objective import surrogate_loss
from tests.algorithm.steps import KINDS, RATIOS, REDUCTIONS, Ratio, Reduction, make_step


def cuts(rows: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 3), min_size=rows, max_size=rows)


@given(seed=st.integers(0, 99), config=st.sampled_from(KINDS), cut=cuts(6))
def test_any_split_into_micro_batches_gives_the_same_loss_and_gradient(
    seed: int, config: ObjectiveConfig, cut: list[int]
) -> None:
    step = make_step(seed, [4, 1, 7, 2, 3, 5])
    loss, gradient = step.gradient(config)
    part_of_token = torch.tensor(cut)[step.rows]
    parts = [torch.nonzero(part_of_token == part)[:, 0] for part in sorted(set(cut))]
    split_loss, split_gradient = step.gradient(config, parts)
    assert split_loss == pytest.approx(loss, rel=1e-12, abs=1e-12)
    torch.testing.assert_close(split_gradient, gradient, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 99), at=st.integers(1, 6), reduction=st.sampled_from(REDUCTIONS))
def test_splitting_a_trajectory_into_rows_changes_neither_loss_nor_gradient(
    seed: int, at: int, reduction: Reduction
) -> None:
    config = ObjectiveConfig(reduction=reduction)
    step = make_step(seed, [4, 7, 2])
    loss, gradient = step.gradient(config)
    split = make_step(seed, [4, 7, 2])
    rows = torch.repeat_interleave(torch.arange(4), torch.tensor([4, at, 7 - at, 2]))
    whole = torch.tensor([0, 1, 1, 2])
    output = surrogate_loss(
        split.logprobs,
        split.behaviour,
        rows,
        split.advantages[whole],
        split.coefficients[whole],
        config=config,
        batch_tokens=split.batch_tokens,
        num_actions=torch.tensor([4, 7, 7, 2]),
    )
    output.loss.backward()
    assert split.logprobs.grad is not None
    assert float(output.loss.detach()) == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(split.logprobs.grad, gradient, rtol=1e-12, atol=1e-14)


@given(seed=st.integers(0, 99), ratio=st.sampled_from(RATIOS))
def test_order_of_tokens_does_not_matter(seed: int, ratio: Ratio) -> None:
    step = make_step(seed, [4, 1, 3])
    config = ObjectiveConfig(ratio=ratio)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    shuffled = step.loss(config, order).loss
    assert float(shuffled.detach()) == pytest.approx(float(step.loss(config).loss.detach()), rel=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_sampled_token_of_a_step_weighs_one_in_all(reduction: Reduction) -> None:
    step = make_step(1, [3, 5, 2])
    _, gradient = step.gradient(ObjectiveConfig(kind="supervised", reduction=reduction))
    assert float(gradient.sum()) == pytest.approx(-1, rel=1e-12)
    if reduction == "trajectory_mean":
        per_row = torch.zeros(3, dtype=torch.float64).index_add(0, step.rows, -gradient)
        torch.testing.assert_close(per_row, step.coefficients, rtol=1e-12, atol=0)


@given(seed=st.integers(0, 99), cut=cuts(4))
def test_sums_merge_over_micro_batches(seed: int, cut: list[int]) -> None:
    step = make_step(seed, [4, 1, 7, 2])
    config = ObjectiveConfig(kl=0.1)
    whole = step.loss(config).sums
    part_of_token = torch.tensor(cut)[step.rows]
    parts = [step.loss(config, torch.nonzero(part_of_token == part)[:, 0]).sums for part in sorted(set(cut))]
    assert list(whole) == sorted(whole)
    for name, value in whole.items():
        merged = max(p[name] for p in parts) if name.endswith("_max") else math.fsum(p[name] for p in parts)
        assert merged == pytest.approx(value, rel=1e-12)
