"""The team under the real scheduler: what `rounds` promises does not depend on how long tools take."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn
from mgrpo_lightning.policy.sampling.conversation import CachedConversation, Request, Tokens
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall
from mgrpo_lightning.records.trajectory import Rollout, Trajectory
from mgrpo_lightning.tools.base import Tool
from tests.agents.fakes import END, START, FakeChat, FakeTool, answer, call, duo, question

Speak = Callable[[str, int], str]
"""(task, messages behind it) to the text of the turn."""


class FakeEngine:
    """A sampler whose turns are made in batches, in the thread that plays."""

    def __init__(self, name: str, scheduler: Scheduler, speak: Speak | None = None) -> None:
        self.name = name
        self.speak = speak or SPEAKERS[name]
        self.scheduler = scheduler
        self.requests: list[Request] = []
        self.batches: list[list[tuple[int, ...]]] = []

    def open(self, ids: Sequence[int], order: tuple[int, ...]) -> Conversation:
        return CachedConversation(Tokens(list(ids), order), partial(self.scheduler.submit, cast("Any", self)))

    @property
    def busy(self) -> bool:
        return bool(self.requests)

    def admit(self, requests: Sequence[Request]) -> None:
        self.batches.append([request.tokens.order for request in requests])
        self.requests += requests

    def advance(self, steps: int) -> list[tuple[Request, SampledTurn]]:
        ended = [(request, self.turn(request)) for request in self.requests]
        self.requests.clear()
        return ended

    def abort(self) -> None:
        self.requests.clear()

    def turn(self, request: Request) -> SampledTurn:
        messages = bytes(i if i < START else 0 for i in request.tokens.ids).decode().split("\0")
        user = next(message[1:] for message in messages if message.startswith("U"))
        said = sum(message.startswith(("T", "A")) for message in messages)
        ids = (*self.speak(user, said).encode(), END)
        request.tokens.ids += ids
        return SampledTurn(ids, (-0.5,) * len(ids), stopped=True, version=0)


def main(task: str, results: int) -> str:
    calls = (*(ToolCall("editor", {"task": t}) for t in "xyz"), ToolCall("search", {"query": "m"}))
    return HermesDialect().render(Action(calls=calls)) if results == 0 else answer("done")


def editor(task: str, results: int) -> str:
    if results == 0:
        return call("search", query=task)
    if results == 1:
        return call("searcher", task=f"{task}1") + call("searcher", task=f"{task}2")
    return answer(f"edited {task}")


def searcher(task: str, results: int) -> str:
    return call("search", query=task) if results == 0 else answer(f"report on {task}")


SPEAKERS = {"main": main, "editor": editor, "searcher": searcher}


def play(seed: int, schedule: Any = "rounds") -> tuple[list[Rollout], list[list[list[tuple[int, ...]]]]]:
    rng = random.Random(seed)

    async def run(query: str) -> str:
        await asyncio.sleep(rng.choice([0, 0, 0.001, 0.003]))
        return f"page of {query}"

    duos = duo()
    roles = {
        "main": replace(duos["main"], calls=["editor", "searcher"], tools=["search"]),
        "editor": replace(duos["main"], tools=["search"], system_prompt="edit"),
        "searcher": duos["searcher"],
    }
    scheduler = Scheduler(schedule)
    engines = {role: FakeEngine(role, scheduler) for role in roles}
    chats = cast("Any", {role: FakeChat() for role in roles})
    tool = cast("Tool", FakeTool(run))
    team = Players(roles, chats, cast("Any", engines), {"search": tool}, scheduler=scheduler, seed=0)
    groups = team.play(PlayRequest([question("One?"), question("Two?")], step=0, rollouts=2)).groups
    return [r for g in groups for r in g.rollouts], [engine.batches for engine in engines.values()]


def view(rollouts: list[Rollout]) -> list[list[tuple[Any, ...]]]:
    def facts(t: Trajectory) -> tuple[Any, ...]:
        return t.key, t.role, t.task, t.parent, [segment.ids for segment in t.segments]

    return [[facts(t) for t in rollout.trajectories()] for rollout in rollouts]


@pytest.mark.parametrize("seed", range(1, 6))
def test_rounds_number_and_batch_alike_whatever_the_tools_delays(seed: int) -> None:
    (rollouts, batches), (others, other_batches) = play(0), play(seed)
    assert view(others) == view(rollouts)
    assert other_batches == batches
    tasks = [[t.task for t in rollout.subs] for rollout in rollouts]
    assert tasks == [["x", "y", "z", "x1", "x2", "y1", "y2", "z1", "z2"]] * 4


def test_eager_makes_the_same_trajectories_in_any_order() -> None:
    rollouts, _ = play(3, "eager")
    for rollout in rollouts:
        assert [t.key.invocation for t in rollout.subs] == list(range(1, 10))
        assert sorted(t.task for t in rollout.subs) == ["x", "x1", "x2", "y", "y1", "y2", "z", "z1", "z2"]
        assert all(t.valid for t in rollout.trajectories())
        by_number = {t.key.invocation: t for t in rollout.subs}
        for caller in rollout.trajectories():
            for made in (c for c in caller.calls if c.invocation is not None):
                assert by_number[made.invocation].task == made.arguments["task"]  # type: ignore[index]
                assert by_number[made.invocation].parent == caller.key.invocation  # type: ignore[index]
