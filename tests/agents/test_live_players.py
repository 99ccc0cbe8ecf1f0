"""Players that stay ready: requests join while others are played, can be cancelled, and end with a reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, cast

import pytest

from mgrpo_lightning.agents.live_players import LivePlayers
from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.policy.sampling.base import SampledTurn
from mgrpo_lightning.policy.sampling.conversation import CachedConversation, Request, Tokens
from mgrpo_lightning.policy.sampling.engine import Finished
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.records.trajectory import Group, Trajectory
from tests.agents.fakes import FakeChat, FakeTool, answer, call, duo, echo, question


class Engine:
    """Says what its role says, a turn a slice; a turn about ``slow`` waits for the test, one about ``bad`` breaks."""

    def __init__(self, name: str, scheduler: Scheduler) -> None:
        self.name = name
        self.scheduler = scheduler
        self.queued: list[Request] = []
        self.largest = 0
        self.let_go = threading.Event()

    @property
    def busy(self) -> bool:
        return bool(self.queued)

    def open(self, ids: Sequence[int], order: tuple[int, ...]) -> Any:
        async def submit(tokens: Tokens, params: Any, stream: int) -> SampledTurn:
            return await self.scheduler.submit(self, tokens, params, stream)

        return CachedConversation(Tokens(list(ids), order), submit)

    def admit(self, requests: Sequence[Request]) -> None:
        self.queued += requests

    def abort(self) -> None:
        self.queued.clear()

    def advance(self, steps: int) -> Finished:
        self.queued = [request for request in self.queued if not request.future.cancelled()]
        self.largest = max(self.largest, len(self.queued))
        texts = {id(request): bytes(i for i in request.tokens.ids if i < 256).decode() for request in self.queued}
        if any("bad" in text for text in texts.values()):
            raise MgrpoError("the model broke.")
        done = [one for one in self.queued if "slow" not in texts[id(one)] or self.let_go.is_set()]
        if not done:
            time.sleep(0.005)
        self.queued = [one for one in self.queued if one not in done]
        return [(one, self.turn(one, texts[id(one)])) for one in done]

    def turn(self, request: Request, text: str) -> SampledTurn:
        said = answer("found") if self.name == "searcher" or "Tfound" in text else call("searcher", task="look")
        ids = tuple(FakeChat().encode_action(said))
        request.tokens.ids += ids
        return SampledTurn(ids, (-0.5,) * len(ids), stopped=True, version=0)


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler("eager")


@pytest.fixture
def engines(scheduler: Scheduler) -> dict[str, Engine]:
    return {role: Engine(role, scheduler) for role in duo()}


@pytest.fixture
def live(scheduler: Scheduler, engines: dict[str, Engine]) -> Iterator[LivePlayers]:
    chats = cast("Any", {role: FakeChat() for role in engines})
    tools = cast("Any", {"search": FakeTool(echo)})
    players = LivePlayers(Players(duo(), chats, cast("Any", engines), tools, scheduler=scheduler, seed=0))
    yield players
    for engine in engines.values():
        engine.let_go.set()
    players.close()


def ask(live: LivePlayers, text: str, number: int = 0, **more: Any) -> Future[list[Group]]:
    return live.play(PlayRequest([question(text)], step=0, rollouts=1, stage="predict", first_query=number, **more))


def test_a_question_is_answered_while_an_earlier_one_still_waits(live: LivePlayers, engines: dict[str, Engine]) -> None:
    slow = ask(live, "slow")
    quick = ask(live, "quick", 1).result(10)
    assert not slow.done()
    assert [rollout.main.answer for rollout in quick[0].rollouts] == ["found"]
    engines["main"].let_go.set()
    rollout = slow.result(10)[0].rollouts[0]
    assert [(t.role, t.answer) for t in rollout.trajectories()] == [("main", "found"), ("searcher", "found")]


def test_questions_of_many_threads_share_a_batch(live: LivePlayers, engines: dict[str, Engine]) -> None:
    asked: list[Future[list[Group]]] = []
    threads = [
        threading.Thread(target=lambda number=number: asked.append(ask(live, "slow", number))) for number in range(9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    give_up = time.monotonic() + 10
    while engines["main"].largest < 9 and time.monotonic() < give_up:
        time.sleep(0.01)
    engines["main"].let_go.set()
    assert {future.result(10)[0].rollouts[0].main.answer for future in asked} == {"found"}
    assert engines["main"].largest == 9


def test_one_that_nobody_wants_leaves_the_batch(live: LivePlayers, engines: dict[str, Engine]) -> None:
    unwanted, other = ask(live, "slow"), ask(live, "slow", 1)
    while len(engines["main"].queued) < 2:
        time.sleep(0.005)
    assert unwanted.cancel()
    while len(engines["main"].queued) > 1:
        time.sleep(0.005)
    engines["main"].let_go.set()
    assert other.result(10)[0].rollouts[0].main.answer == "found"
    with pytest.raises(CancelledError):
        unwanted.result()


def test_a_close_ends_what_is_played_and_a_later_question_is_refused(live: LivePlayers) -> None:
    slow = ask(live, "slow")
    live.close()
    assert slow.cancelled()
    live.close()
    with pytest.raises(MgrpoError, match="plays no more: it was closed"):
        ask(live, "quick")


def test_a_model_that_breaks_ends_every_question_with_its_error(live: LivePlayers) -> None:
    slow = ask(live, "slow")
    bad = ask(live, "bad", 1)
    for future in (slow, bad):
        with pytest.raises(MgrpoError, match="the model broke"):
            future.result(10)
    with pytest.raises(MgrpoError, match=r"plays no more: the model broke.*HINT: load it again"):
        ask(live, "quick", 2)


def test_a_watch_that_fails_ends_its_own_question_alone(live: LivePlayers, engines: dict[str, Engine]) -> None:
    def watch(trajectory: Trajectory) -> None:
        raise ValueError(trajectory.role)

    slow = ask(live, "slow")
    with pytest.raises(ValueError, match="main"):
        ask(live, "quick", 1, watch=watch).result(10)
    engines["main"].let_go.set()
    assert slow.result(10)[0].rollouts[0].main.answer == "found"


def test_a_watch_sees_every_message_when_it_comes(live: LivePlayers) -> None:
    seen: list[tuple[str, str]] = []
    groups = ask(live, "quick", watch=lambda t: seen.append((t.role, t.messages[-1].role))).result(10)
    assert seen == [("main", "assistant"), ("searcher", "assistant"), ("main", "tool"), ("main", "assistant")]
    messages = [m.role for t in groups[0].rollouts[0].trajectories() for m in t.messages[2:]]
    assert messages == ["assistant", "tool", "assistant", "assistant"]
