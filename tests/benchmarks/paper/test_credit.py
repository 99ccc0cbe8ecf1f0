"""Forks differ from their rollout in what they should and in nothing else; the figures of credit are right by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.paper.credit import Measured, advantages, ceiling, correlation, draw, interval, table
from benchmarks.paper.forking import Fork, ForkingSampler, turns_of
from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.scoring import score_groups
from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.records.trajectory import Rollout
from tests.agents.fakes import FakeTask, answer, call, duo, make_team, question

chance = random.Random(0)


def main_speaks(task: str, turn: int, order: tuple[int, ...]) -> str:
    """Two delegations in the first turn, one in the second, then an answer with a number of chance."""
    if turn == 2:
        return answer(f"end {chance.random()}")
    tasks = ("first", "second") if turn == 0 else ("third",)
    return "\n".join(call("searcher", task=f"{name} {chance.random()}") for name in tasks)


def searcher_speaks(task: str, turn: int, order: tuple[int, ...]) -> str:
    return call("search", query=f"{task} {chance.random()}") if turn == 0 else answer(f"found {chance.random()}")


def texts(rollout: Rollout, invocation: int) -> list[str]:
    trajectory = [rollout.main, *rollout.subs][invocation]
    return [message.content for message in trajectory.messages if message.role == "assistant"]


@pytest.mark.parametrize("invocation", [1, 2, 3])
def test_copies_repeat_all_but_what_is_sampled_anew(invocation: int) -> None:
    team, samplers = make_team(duo(), {"main": main_speaks, "searcher": searcher_speaks})
    original = team.play(PlayRequest([question()], step=0, rollouts=1)).groups[0].rollouts[0]
    assert len(original.subs) == 3
    fork = Fork.at(original, invocation, kept=2)
    cast("Any", team)._samplers = {name: ForkingSampler(sampler, [fork]) for name, sampler in samplers.items()}
    (group,) = team.play(PlayRequest([question()], step=0, rollouts=4)).groups
    made = 1 if invocation == 3 else 0
    for copy, rollout in enumerate(group.rollouts):
        assert texts(rollout, 0)[: made + 1] == texts(original, 0)[: made + 1]
        assert texts(rollout, 0)[made + 1 :] != texts(original, 0)[made + 1 :], "main goes on by chance"
        for other in range(1, 4):
            again = other != invocation or copy < fork.kept
            called = other <= (3 if made else 2)
            assert (texts(rollout, other) == texts(original, other)) == (again and called), (copy, other)
    kept = turns_of(group.rollouts[0].subs[invocation - 1])
    assert kept == turns_of(original.subs[invocation - 1]), "ids, log-probabilities and all"


def test_an_advantage_without_the_expert_term_is_that_of_main_s_correctness_alone() -> None:
    roles = duo()
    answers = iter(["yes", "no", "no", "no"])
    speakers = {
        "main": lambda _, turn, __: call("searcher", task="t") if turn == 0 else answer(next(answers)),
        "searcher": lambda _, turn, order: answer("good" if order[1] % 2 else "bad"),
    }
    team, _ = make_team(roles, speakers)
    (group,) = team.play(PlayRequest([question()], step=0, rollouts=4)).groups
    score_groups([group], FakeTask(judge=lambda t: float(t.answer == "good")), roles)
    trained = cast("Any", SimpleNamespace())
    trained.module = SimpleNamespace(roles=roles)
    trained.data = SimpleNamespace(alignment=AlignmentConfig())
    weights = roles["searcher"].weights
    right = [rollout.scores[0].correct for rollout in group.rollouts].index(1.0)
    found = advantages([group], trained, "searcher", replace(weights, expert=0.0))
    assert {key.rollout: value for key, value in found.items()} == pytest.approx(
        {k: 3**0.5 if k == right else -(3**-0.5) for k in range(4)}
    )
    both = advantages([group], trained, "searcher", weights)
    assert len({round(value, 9) for value in both.values()}) == 3


def measured(advantage: float, kept: list[float], fresh: list[float]) -> Measured:
    return Measured("1 hop", advantage, -advantage, kept, fresh)


def test_figures_by_hand(tmp_path: Path) -> None:
    found = [measured(1.0, [1, 1], [0, 0]), measured(-1.0, [0, 0], [1, 1]), measured(0.5, [1, 1], [0, 1])]
    assert [one.effect() for one in found] == [1.0, -1.0, 0.5]
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert correlation([1, 1], [0, 1]) == 0
    assert interval(found, lambda some: len(some)) == (3, 3)
    noisy = [measured(0.0, [1, 0], [0, 0]), measured(0.0, [0, 1], [0, 0])]
    assert ceiling(noisy) == 0
    assert ceiling(found[:2]) == pytest.approx(1)
    lines = table({"6": found}).splitlines()
    assert lines[2].startswith("| step 6 | 3 | with the expert term | 1.00 |")
    assert lines[2].endswith("| 3 of 3 | 0.96 |")
    assert lines[3].startswith("| step 6 | 3 | without it | -1.00 |")
    draw(found, tmp_path / "credit.png")
    assert (tmp_path / "credit.png").read_bytes().startswith(b"\x89PNG")
