from __future__ import annotations

import itertools

import pytest

from mgrpo_lightning.algorithm.config import RewardConfig
from mgrpo_lightning.algorithm.rewards import reward

MAIN = RewardConfig(format=0.1, correct=0.9)
SUB = RewardConfig(format=0.1, correct_main=0.4, expert=0.5)


@pytest.mark.parametrize(
    ("valid", "correct", "expected"), [(True, 1, 1.0), (True, 0, 0.1), (False, 1, 0.0), (False, 0, 0.0)]
)
def test_reward_of_main_is_equation_4(valid: bool, correct: float, expected: float) -> None:
    assert reward(MAIN, valid=valid, correct=correct) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("valid", "correct_main", "expert"), list(itertools.product([True, False], [0, 1], [0, 0.5, 1]))
)
def test_reward_of_a_sub_agent_is_equation_5(valid: bool, correct_main: float, expert: float) -> None:
    expected = 0.1 + 0.4 * correct_main + 0.5 * expert if valid else 0.0
    assert reward(SUB, valid=valid, correct_main=correct_main, expert=expert) == pytest.approx(expected, abs=1e-15)


def test_a_component_of_weight_zero_is_off() -> None:
    assert reward(MAIN, valid=True, correct=1, correct_main=1, expert=1) == reward(MAIN, valid=True, correct=1)


def test_components_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(AssertionError, match="outside"):
        reward(SUB, valid=True, expert=7)
