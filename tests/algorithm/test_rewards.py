from __future__ import annotations

import itertools

import pytest

from mgrpo_lightning.algorithm.config import RewardConfig, RewardFunction
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


def test_functions_are_added_in_the_order_of_their_names() -> None:
    blocks = {name: RewardFunction("f", weight) for name, weight in (("c", 0.1), ("a", 0.3), ("b", 0.0))}
    values = {"a": 0.7, "c": 1 / 3}
    config = RewardConfig(format=0.1, correct=0.2, functions=blocks)
    other = RewardConfig(format=0.1, correct=0.2, functions=dict(reversed(blocks.items())))
    found = reward(config, valid=True, correct=1, functions=values)
    assert found == reward(other, valid=True, correct=1, functions=values) == 0.1 + 0.2 + 0.3 * 0.7 + 0.1 / 3
    assert reward(config, valid=False, correct=1, functions=values) == 0.0
    assert list(config.parts) == ["format", "correct", "a", "c"]
    assert config.most == pytest.approx(0.7)


def test_components_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(AssertionError, match="outside"):
        reward(SUB, valid=True, expert=7)
