"""A play that dies and is played again: all that was finished is said again, once, and nothing finished is redone."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.persistence.resume_log import ResumeLog, whole_lines
from mgrpo_lightning.records.trajectory import Group
from tests.agents.fakes import FakeTool, answer, call, duo, limits, make_team, question

ROLLOUTS = 6


class Killed(BaseException):
    """The process is gone."""


class World:
    """Policies and a tool that never say the same twice, and die together at their n-th word."""

    def __init__(self, dies_at: int | None, seed: int) -> None:
        self.said: Counter[str] = Counter()
        self._dies_at = dies_at
        self._chance = random.Random(seed)
        self._count = itertools.count()

    def _word(self) -> str:
        if (number := next(self._count)) == self._dies_at:
            raise Killed
        self.said[word := f"{self._chance.getrandbits(40)}-{number}"] += 1
        return word

    def main(self, task: str, turn: int, order: tuple[int, ...]) -> str:
        calls = [call("searcher", task=self._word()) for _ in range(self._chance.randint(0, 2))]
        return "".join(calls) or answer(self._word())

    def searcher(self, task: str, turn: int, order: tuple[int, ...]) -> str:
        word = self._word()
        return call("search", query=word) if self._chance.random() < 0.5 else answer(word)

    async def search(self, query: str) -> str:
        await asyncio.sleep(self._chance.choice([0, 0.001]))
        if self._chance.random() < 0.2:
            raise OSError(f"no network {self._word()}")
        return f"page {self._word()}"


def played(world: World, resume_log: ResumeLog) -> list[Group]:
    roles = duo(main=limits(turns=4), searcher=limits(turns=4))
    team, _ = make_team(roles, {"main": world.main, "searcher": world.searcher}, {"search": FakeTool(world.search)})
    asked = [question("Which?"), question("Who?")]
    return team.play(PlayRequest(asked, step=0, rollouts=ROLLOUTS, resume_log=resume_log)).groups


def finished(path: Path) -> set[str]:
    """The turns and results in a file, as text."""
    values = [record["value"] for record in whole_lines(path)[0][1:]]
    return {str(v["text"]) if "text" in v else bytes(i for i in v["ids"] if i < 256).decode() for v in values}


def contents(groups: list[Group]) -> list[str]:
    """Every turn and every tool result of the play."""
    trajectories = [t for group in groups for rollout in group.rollouts for t in rollout.trajectories()]
    turns = [message.content for t in trajectories for message in t.messages if message.role == "assistant"]
    return turns + [call.result for t in trajectories for call in t.calls if call.invocation is None]


@pytest.mark.parametrize("dies_at", [0, 1, 5, 10, 17, 25])
@pytest.mark.parametrize("seed", range(5))
def test_what_was_finished_is_in_the_play_once_and_is_not_done_again(tmp_path: Path, dies_at: int, seed: int) -> None:
    path = tmp_path / "step-000000.jsonl"
    resume_log = ResumeLog(path, "")
    with pytest.raises(Killed):
        played(World(dies_at, seed), resume_log)
    resume_log.close()
    before = finished(path)
    again = World(None, seed + 100)
    resume_log = ResumeLog(path, "")
    groups = played(again, resume_log)
    resume_log.close()
    assert [len(group.rollouts) for group in groups] == [ROLLOUTS] * 2
    times = Counter(contents(groups))
    assert {text: times[text] for text in before} == dict.fromkeys(before, 1)
    new = [text for text in times if text not in before]
    assert sum(times.values()) == len(before) + len(new)
    assert all(any(word in text for text in new) for word in again.said), "something finished was done again"


def test_a_turn_on_other_words_is_not_said_again(tmp_path: Path) -> None:
    """The text before it differs, though the place and the random numbers are the same (correctness.md 34)."""
    path = tmp_path / "step-000000.jsonl"

    def report_on(result: str) -> tuple[str, str]:
        async def search(query: str) -> str:
            return result

        speak: dict[str, Callable[..., str]] = {
            "main": lambda task, turn, order: call("searcher", task="find") if turn == 0 else answer("done"),
            "searcher": lambda task, turn, order: call("search", query="q") if turn == 0 else answer(f"of {result}"),
        }
        resume_log = ResumeLog(path, "")
        team, _ = make_team(duo(), speak, {"search": FakeTool(search)})
        (group,) = team.play(PlayRequest([question()], step=0, rollouts=1, resume_log=resume_log)).groups
        resume_log.close()
        searcher = group.rollouts[0].subs[0]
        return searcher.messages[-2].content, searcher.messages[-1].content

    assert report_on("old page") == ("old page", answer("of old page"))
    # The result is lost, the turns behind it are not.
    records = whole_lines(path)[0][1:]
    path.unlink()
    resume_log = ResumeLog(path, "")
    for record in records:
        if record["value"].get("text") != "old page":
            resume_log.put(record["key"], record["value"])
    assert len(whole_lines(path)[0]) == len(records)
    resume_log.close()
    assert report_on("new page") == ("new page", answer("of new page"))


def test_a_call_for_another_question_is_not_answered_again(tmp_path: Path) -> None:
    """A run whose questions have changed makes the same call at the same place, in another world."""

    def found(text: str, result: str) -> str:
        async def search(query: str) -> str:
            return result

        speak: dict[str, Callable[..., str]] = {
            "main": lambda task, turn, order: call("searcher", task="find") if turn == 0 else answer("done"),
            "searcher": lambda task, turn, order: call("search", query="q") if turn == 0 else answer("found"),
        }
        resume_log = ResumeLog(tmp_path / "held-out-000000-0.jsonl", "")
        team, _ = make_team(duo(), speak, {"search": FakeTool(search)})
        (group,) = team.play(PlayRequest([question(text)], step=0, rollouts=1, resume_log=resume_log)).groups
        resume_log.close()
        return group.rollouts[0].subs[0].calls[0].result

    assert found("Which?", "old page") == "old page"
    assert found("Which?", "new page") == "old page", "the same question goes on"
    assert found("Who?", "new page") == "new page"
