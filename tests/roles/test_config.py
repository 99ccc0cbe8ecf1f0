"""Numbers and calls of a team file that could not work, or would do harm without a word."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.roles.config import OptimizerConfig, RoleConfig, main_role


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("clip_low", value) for value in (-0.1, math.nan)],
        *[("clip_high", value) for value in (-0.1, math.nan)],
        *[("correction_cap", value) for value in (0.0, -1.0)],
        *[("kl", value) for value in (-0.1, math.nan)],
        *[("std_floor", value) for value in (0.0, -1e-6, math.nan)],
    ],
)
def test_an_objective_that_cannot_work_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"objective.{name} is {value}\. HINT: give"):
        ObjectiveConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"), [("lr", -1e-5), ("lr", math.nan), ("clip_norm", 0.0), ("clip_norm", -1.0), ("warmup", -1)]
)
def test_an_optimizer_that_cannot_work_is_refused(name: str, value: float) -> None:
    """A bound of 0 would make every gradient 0, which elsewhere means no bound."""
    with pytest.raises(ConfigurationError, match=rf"optimizer.{name} is {value}\. HINT: give"):
        OptimizerConfig(**{name: value})  # type: ignore[arg-type]


def test_the_ends_of_the_ranges_are_allowed() -> None:
    ObjectiveConfig(clip_low=0.0, clip_high=0.0, kl=0.0)
    OptimizerConfig(lr=0.0, clip_norm=math.inf)


@pytest.mark.parametrize(
    ("calls", "problem"),
    [
        ({"main": ["a"], "a": ["b"], "b": ["a"]}, "circle: a -> b -> a|circle: main -> a -> b -> a"),
        ({"main": [], "a": ["b"], "b": ["a"]}, "circle: a -> b -> a"),  # main does not reach it
        ({"main": [], "a": ["a"]}, "circle: a -> a"),
        ({"main": ["b"], "a": ["b"], "b": []}, "2 roles have no caller"),
        ({"main": ["c"]}, "'c', which is not a role"),
    ],
)
def test_calls_form_a_tree_under_one_main(calls: Mapping[str, Sequence[str]], problem: str) -> None:
    roles = {name: RoleConfig(base_model="pocket", calls=list(callees)) for name, callees in calls.items()}
    with pytest.raises(ConfigurationError, match=rf"{problem}.*HINT"):
        main_role(roles)
    assert (
        main_role({"main": RoleConfig(base_model="pocket", calls=["a"]), "a": RoleConfig(base_model="pocket")})
        == "main"
    )
