"""When turns are computed, shown with an engine that only records: batches, order, errors, no deadlock."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Literal

import pytest

from mgrpo_lightning.policy.sampling.base import SampledTurn, SamplingParams
from mgrpo_lightning.policy.sampling.conversation import Request, Tokens
from mgrpo_lightning.policy.sampling.scheduler import Scheduler

Schedule = Literal["rounds", "eager"]
Agent = Coroutine[Any, Any, Any]
SCHEDULES: tuple[Schedule, ...] = ("rounds", "eager")


class Recorder:
    """An engine whose turns take a given number of slices."""

    def __init__(self, name: str = "main", slices: int = 1, fail_at: int = -1) -> None:
        self.name = name
        self.batches: list[list[tuple[int, ...]]] = []
        self.aborted = False
        self._slices = slices
        self._fail_at = fail_at
        self._left: dict[Request, int] = {}

    @property
    def busy(self) -> bool:
        return bool(self._left)

    def admit(self, requests: Sequence[Request]) -> None:
        if requests:
            self.batches.append([request.tokens.order for request in requests])
        self._left.update(dict.fromkeys(requests, self._slices))

    def advance(self, steps: int) -> list[tuple[Request, SampledTurn]]:
        if len(self.batches) == self._fail_at:
            raise RuntimeError("out of memory")
        self._left = {request: left - 1 for request, left in self._left.items()}
        ended = [request for request, left in self._left.items() if left == 0]
        for request in ended:
            del self._left[request]
        return [(request, SampledTurn((1,), (0.0,), True, 0)) for request in ended]

    def abort(self) -> None:
        self.aborted = True
        self._left.clear()


async def turn(scheduler: Scheduler, engine: Recorder, *order: int) -> SampledTurn:
    return await scheduler.submit(engine, Tokens([1], order), SamplingParams(1, (1,)), 0)


@pytest.mark.parametrize("delays", [(0.0, 0.03, 0.01), (0.02, 0.0, 0.0)])
def test_rounds_make_the_same_batches_whatever_the_tools_take(delays: tuple[float, ...]) -> None:
    scheduler, engine = Scheduler("rounds"), Recorder()

    async def agent(index: int) -> int:
        for _ in range(3):
            await turn(scheduler, engine, -index)
            await asyncio.sleep(delays[index])
        return index

    assert scheduler.play([agent(index) for index in range(3)]) == [0, 1, 2]
    assert engine.batches == [[(-2,), (-1,), (0,)]] * 3


def test_eager_computes_while_tools_run() -> None:
    scheduler, engine = Scheduler("eager"), Recorder()
    computed = asyncio.Event()

    async def slow() -> None:
        await computed.wait()  # a tool that ends only when the other agent's turns were computed
        await turn(scheduler, engine, 0)

    async def quick() -> None:
        for _ in range(3):
            await turn(scheduler, engine, 1)
        computed.set()

    scheduler.play([slow(), quick()])
    assert engine.batches == [[(1,)], [(1,)], [(1,)], [(0,)]]


def test_eager_lets_new_turns_join_a_running_batch() -> None:
    scheduler, engine = Scheduler("eager"), Recorder(slices=50)

    async def agent(index: int) -> None:
        await asyncio.sleep(0.001 * index)
        await turn(scheduler, engine, index)

    scheduler.play([agent(0), agent(1)])
    assert [order for batch in engine.batches for order in batch] == [(0,), (1,)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_parents_wait_for_children_of_another_engine(schedule: Schedule) -> None:
    scheduler, main, sub = Scheduler(schedule), Recorder("main"), Recorder("sub")

    async def child(*order: int) -> int:
        for _ in range(order[-1] + 1):
            await turn(scheduler, sub, *order)
        return order[-1]

    async def parent(index: int) -> list[int]:
        await turn(scheduler, main, index)
        tasks = [scheduler.spawn(child(index, i)) for i in range(2)]
        with scheduler.blocked():
            results = await asyncio.gather(*tasks)
        await turn(scheduler, main, index)
        return results

    assert scheduler.play([parent(0), parent(1)]) == [[0, 1], [0, 1]]
    if schedule == "rounds":
        assert main.batches == [[(0,), (1,)]] * 2
        assert sub.batches == [[(0, 0), (0, 1), (1, 0), (1, 1)], [(0, 1), (1, 1)]]


def test_a_round_waits_for_a_parent_that_is_about_to_go_on() -> None:
    # Agent 1 waits for a turn when the only child of agent 0 ends: agent 0 has to be in the next batch.
    scheduler, engine = Scheduler("rounds"), Recorder()

    async def child() -> None:
        await asyncio.sleep(0.01)

    async def parent() -> None:
        with scheduler.blocked():
            await scheduler.spawn(child())
        for _ in range(20):
            await asyncio.sleep(0)
        await turn(scheduler, engine, 0)

    async def other() -> None:
        await turn(scheduler, engine, 1)

    scheduler.play([parent(), other()])
    assert engine.batches == [[(0,), (1,)]]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("where", ["agent", "child", "engine"])
def test_the_first_error_ends_the_play_and_leaves_nothing_running(schedule: Schedule, where: str) -> None:
    scheduler = Scheduler(schedule)
    engine = Recorder(slices=3, fail_at=1 if where == "engine" else -1)
    cancelled: list[str] = []

    async def fails() -> None:
        await turn(scheduler, engine, 0)
        if where == "agent":
            raise ValueError("agent")
        if where == "child":
            with scheduler.blocked():
                await scheduler.spawn(broken())
        await turn(scheduler, engine, 0)

    async def broken() -> None:
        raise ValueError("child")

    async def bystander() -> None:
        try:
            await turn(scheduler, engine, 1)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append("bystander")
            raise

    with pytest.raises((ValueError, RuntimeError), match="out of memory" if where == "engine" else where):
        scheduler.play([fails(), bystander()])
    assert cancelled == ["bystander"]
    assert not engine.busy
    again = Recorder()
    assert scheduler.play([turn(scheduler, again, 5)])[0].stopped
    assert again.batches == [[(5,)]]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_on_done_is_called_once_an_agent_and_never_for_children(schedule: Schedule) -> None:
    scheduler, engine = Scheduler(schedule), Recorder()
    done: list[int] = []

    async def agent() -> None:
        with scheduler.blocked():
            await scheduler.spawn(turn(scheduler, engine, 0))

    scheduler.play([agent(), agent(), agent()], on_done=lambda: done.append(1))
    assert len(done) == 3


def test_play_works_where_a_loop_is_running_already() -> None:
    scheduler, engine = Scheduler("rounds"), Recorder()

    async def notebook_cell(play: Callable[[Sequence[Agent]], list[Any]]) -> list[Any]:
        return play([turn(scheduler, engine, 0)])

    assert len(asyncio.run(notebook_cell(scheduler.play))) == 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_turns_are_computed_in_the_thread_that_plays_and_agents_go_on_in_another(schedule: Schedule) -> None:
    """Two computing threads have two teams of OpenMP threads, which slow each other."""
    scheduler = Scheduler(schedule)
    computed: set[threading.Thread] = set()
    agents: set[threading.Thread] = set()

    class Here(Recorder):
        def advance(self, steps: int) -> list[tuple[Request, SampledTurn]]:
            computed.add(threading.current_thread())
            return super().advance(steps)

    async def agent() -> None:
        await turn(scheduler, engine, 0)
        agents.add(threading.current_thread())

    engine = Here()
    scheduler.play([agent(), agent()])
    assert computed == {threading.current_thread()}
    assert len(agents) == 1
    assert not agents & computed


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where a shell has started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("where", ["computing", "waiting"])
def test_an_interrupted_play_ends_its_agents_and_says_so(schedule: Schedule, where: str, interrupts: None) -> None:
    scheduler = Scheduler(schedule)
    cancelled: list[str] = []

    class Interrupted(Recorder):
        def advance(self, steps: int) -> list[tuple[Request, SampledTurn]]:
            raise KeyboardInterrupt

    async def agent() -> None:
        try:
            await turn(scheduler, engine, 0)
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does: to the main thread, which waits for work
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append("agent")
            raise

    engine = Interrupted() if where == "computing" else Recorder()
    with pytest.raises(KeyboardInterrupt):
        scheduler.play([agent()])
    assert cancelled == ["agent"]
    assert not engine.busy
    again = Recorder()
    assert scheduler.play([turn(scheduler, again, 5)])[0].stopped


@pytest.mark.parametrize("schedule", ["rounds", "eager"])
def test_other_work_is_done_while_there_is_nothing_to_compute(schedule: Schedule) -> None:
    scheduler = Scheduler(schedule)
    engine = Recorder("main")
    left, threads = [3], set()
    released = threading.Event()

    def background() -> bool:
        threads.add(threading.get_ident())
        left[0] -= 1
        if left[0] == 0:
            released.set()
        return left[0] >= 0

    async def agent(number: int) -> SampledTurn:
        await asyncio.to_thread(released.wait, 10)  # a tool that ends when the other work has been done
        return await turn(scheduler, engine, number)

    scheduler.play([agent(0), agent(1)], background=background)
    assert released.is_set()
    assert threads == {threading.get_ident()}
    assert sum(map(len, engine.batches)) == 2
    assert scheduler.idle < 10


def test_what_other_work_raises_ends_the_play() -> None:
    scheduler = Scheduler("eager")

    def background() -> bool:
        raise ZeroDivisionError

    async def agent() -> None:
        await asyncio.sleep(10)

    with pytest.raises(ZeroDivisionError):
        scheduler.play([agent()], background=background)


def test_nothing_to_play_is_an_empty_result() -> None:
    assert Scheduler("rounds").play([]) == []
