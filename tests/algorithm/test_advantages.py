from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mgrpo_lightning.algorithm.advantages import Advantages, group_advantages
from mgrpo_lightning.algorithm.config import ObjectiveConfig

FLOOR = ObjectiveConfig().std_floor
REWARD = st.floats(0, 1)


def normalise(rewards: list[float], weights: list[float] | None = None, floor: float = FLOOR) -> Advantages:
    weights = [1.0] * len(rewards) if weights is None else weights
    return group_advantages(
        torch.tensor(rewards, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64), std_floor=floor
    )


def by_hand(slots: list[float]) -> list[float]:
    mean = math.fsum(slots) / len(slots)
    std = math.sqrt(math.fsum((r - mean) ** 2 for r in slots) / len(slots))
    return [(r - mean) / std for r in slots]


def test_near_equal_rewards_do_not_explode() -> None:
    # NeMo-RL #4161: 7 rewards against 1, none of them a binary fraction. In float32, with E[x^2] - E[x]^2, the std of
    # seven times 0.35 comes out near 1e-4 instead of 0, and whatever was divided by it was multiplied by thousands.
    equal = normalise([0.35] * 7)
    assert equal.degenerate
    assert equal.values.tolist() == [0.0] * 7
    group = normalise([0.35] * 7 + [0.95])
    assert group.values.tolist() == pytest.approx([-1 / math.sqrt(7)] * 7 + [math.sqrt(7)], rel=1e-12)
    # The same reward, added up in another order: rounding is no signal.
    sums = [0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1]
    assert sums[0] != sums[1]
    assert normalise(sums * 2).values.tolist() == [0.0] * 4


def test_small_but_real_spread_is_not_shrunk() -> None:
    # verl #6348: two real scores, 1e-5 apart, got advantages of 0.005 from one formula and 0.62 from the other,
    # because an epsilon was added to the variance or to the std. The printed formula gives exactly -1 and 1.
    group = normalise([1.0, 1.0000100135803223])
    assert not group.degenerate
    assert group.values.tolist() == pytest.approx([-1.0, 1.0], rel=1e-9)


@given(rewards=st.lists(REWARD, min_size=2, max_size=64), data=st.data())
def test_no_advantage_exceeds_what_population_statistics_allow(rewards: list[float], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 8), min_size=len(rewards), max_size=len(rewards)))
    result = normalise(rewards, [float(w) for w in weights])
    for value, weight in zip(result.values.tolist(), weights, strict=True):
        assert abs(value) <= math.sqrt((sum(weights) - weight) / weight) * (1 + 1e-6)


@given(value=REWARD, weight=st.floats(0.1, 8))
def test_a_singleton_gets_advantage_zero_and_is_counted(value: float, weight: float) -> None:
    for result in (normalise([value], [weight]), normalise([value, 0.3, 0.9], [weight, 0.0, 0.0])):
        assert result.singleton
        assert result.degenerate
        assert not result.values.any()


def test_one_trajectory_in_all_slots_is_a_singleton() -> None:
    result = normalise([0.7], [8.0])
    assert result.singleton
    assert result.values.tolist() == [0.0]


@given(rewards=st.lists(REWARD, min_size=2, max_size=8), data=st.data())
def test_weights_count_as_literal_copies(rewards: list[float], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 5), min_size=len(rewards), max_size=len(rewards)))
    result = normalise(rewards, [float(w) for w in weights])
    assume(result.std > 1e-3)
    slots = [r for r, w in zip(rewards, weights, strict=True) for _ in range(w)]
    firsts = [sum(weights[:i]) for i in range(len(weights))]
    expected = [by_hand(slots)[first] for first in firsts]
    assert result.values.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_statistics_are_of_the_population() -> None:
    result = normalise([0.0, 1.0])
    assert (result.mean, result.std) == (0.5, 0.5)
    assert result.values.tolist() == [-1.0, 1.0]


@given(rewards=st.lists(REWARD, min_size=2, max_size=8), failed=st.integers(1, 4))
def test_failed_samples_leave_before_mean_and_std(rewards: list[float], failed: int) -> None:
    alone = normalise(rewards)
    beside = normalise(rewards + [math.nan] * failed, [1.0] * len(rewards) + [0.0] * failed)
    assert beside.values.tolist() == alone.values.tolist() + [0.0] * failed
    assert (beside.mean, beside.std, beside.members) == (alone.mean, alone.std, alone.members)


def test_an_empty_group_has_no_advantages_and_no_nan() -> None:
    assert normalise([]).members == 0
    result = normalise([math.nan, math.nan], [0.0, 0.0])
    assert result.values.tolist() == [0.0, 0.0]
    assert result.degenerate
    assert not result.singleton


def test_float32_rewards_are_normalised_in_float64() -> None:
    rewards = torch.tensor([0.35] * 7 + [0.0], dtype=torch.float32)
    result = group_advantages(rewards, torch.ones(8), std_floor=FLOOR)
    assert result.values.dtype == torch.float64
    assert result.values.tolist() == pytest.approx([1 / math.sqrt(7)] * 7 + [-math.sqrt(7)], rel=1e-12)
