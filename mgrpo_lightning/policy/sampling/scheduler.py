"""Scheduler: runs the agents (coroutines) of a step and decides when to compute the turns they wait for.

``rounds``: a batch starts only when every agent waits, for a turn or for its sub-agents. Then the content and order of
each batch do not depend on how long tools take, and the run is bitwise reproducible.
``eager``: waiting turns are computed at once, while tools run. New turns join the batch between slices of SLICE steps.

The model computes in the thread that calls ``play``; updates are computed there too. The agents' event loop has its own
thread and computes nothing. OpenMP keeps a team of threads for each thread that computes, and two teams on the same
cores make decoding up to twice as slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from mgrpo_lightning.policy.sampling.base import SampledTurn, SamplingParams
from mgrpo_lightning.policy.sampling.callers_thread import CallersThread
from mgrpo_lightning.policy.sampling.conversation import Request, Tokens

T = TypeVar("T")
SLICE = 8
"""Decoding steps of one ``Engine.advance``. Under ``eager``, new turns may join the batch after each slice."""
PAUSE = 0.005
"""Seconds that the model must be idle before background work starts. One piece of it may take seconds."""


class Link(Protocol):
    """Exchange of calls and answers with agents of other processes."""

    async def meet(self) -> None:
        """Under ``rounds``: once a round, send this process's messages of the round and receive those of the others."""
        ...

    async def run(self) -> None:
        """Under ``eager``: exchange messages all the time, until this task is cancelled."""
        ...


class Engine(Protocol):
    """What the scheduler needs of a sampler. Its methods are called only while no engine computes."""

    name: str
    """Sort key: engines compute in the order of their names."""

    @property
    def busy(self) -> bool:
        """Whether any admitted turn is not finished."""
        ...

    def admit(self, requests: Sequence[Request]) -> None:
        """Queue requests for the next ``advance``."""
        ...

    def advance(self, steps: int) -> list[tuple[Request, SampledTurn]]:
        """Compute up to ``steps`` decoding steps; return the turns that ended."""
        ...

    def abort(self) -> None:
        """Drop all queued and unfinished turns."""
        ...


@dataclass(eq=False)
class _Agent:
    """The state of one agent that the schedule depends on."""

    parent: _Agent | None = None
    waiting: int = 0
    """Number of turns that the agent waits for."""
    blocked: bool = False
    """Whether the agent waits for its children."""
    children: int = 0
    """Number of running children and of unanswered calls to other processes."""

    @property
    def idle(self) -> bool:
        """Whether the agent cannot continue before a turn or a child ends.

        A parent counts as active as soon as its last child is done, even if asyncio has not woken it up yet.
        """
        return self.waiting > 0 or (self.blocked and self.children > 0)


_current: ContextVar[_Agent] = ContextVar("agent")


class Scheduler:
    """Runs agents and batches their turns.

    Args:
        schedule: ``rounds`` or ``eager`` (see the module docstring).
    """

    def __init__(self, schedule: Literal["rounds", "eager"] = "eager") -> None:
        self.schedule = schedule
        self._agents: set[_Agent] = set()
        self._waiting: dict[Engine, list[Request]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: asyncio.Task[None] | None = None
        self._computing: Future[Any] | None = None
        self._stopping = False
        self.idle = 0.0
        """Seconds of the last play without computation: all agents waited for tools or other processes."""

    def play(
        self,
        coroutines: Sequence[Coroutine[Any, Any, T]],
        on_done: Callable[[], None] | None = None,
        link: Link | None = None,
        meanwhile: Callable[[], bool] | None = None,
    ) -> list[T]:
        """Run agents to their end in their own thread, and the model in this one. Return the agents' results in order.

        Args:
            coroutines: The agents.
            on_done: Called after each agent ends, in the agents' thread.
            link: Exchange with agents of other processes.
            meanwhile: Background work. Called in this thread when the model is idle; does one piece and returns whether
                there was one.

        Raises:
            BaseException: The first exception of an agent or the model. Everything else is cancelled first.
        """
        self._loop = self._worker = None
        here = CallersThread()
        with ThreadPoolExecutor(1, thread_name_prefix="agents") as pool:
            playing = pool.submit(lambda: asyncio.run(self._play(coroutines, on_done, here, link, meanwhile)))
            try:
                return here.serve(playing)
            finally:
                self.idle = here.idle
                # Reached only after an interrupt of this thread. Repeat, as the loop may not have started yet.
                while not playing.done():
                    self._interrupt()
                    wait([playing], timeout=0.1)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a child of the calling agent; await it inside ``blocked()``. A link's child has no parent."""
        return self._start(coroutine, _current.get(None), None)

    async def elsewhere(self, answer: asyncio.Future[T]) -> T:
        """Wait for the answer of another process, as if it were a child.

        Args:
            answer: Future that the link sets.
        """
        agent = _current.get()
        agent.children += 1

        def resume(_: asyncio.Future[T]) -> None:
            agent.children -= 1

        answer.add_done_callback(resume)
        return await answer

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Mark the block in which an agent awaits its children. The agent must await nothing else in it."""
        agent = _current.get()
        agent.blocked = True
        self._changed.set()
        try:
            yield
        finally:
            agent.blocked = False

    async def submit(self, engine: Engine, tokens: Tokens, params: SamplingParams, stream: int) -> SampledTurn:
        """Request one turn of ``engine`` and wait for it."""
        agent = _current.get()
        future: asyncio.Future[SampledTurn] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(engine, []).append(Request(tokens, params, stream, future))

        def resume(_: asyncio.Future[SampledTurn]) -> None:
            agent.waiting -= 1

        agent.waiting += 1
        # The callback runs before this agent wakes up, so no round starts while the agent is about to go on.
        future.add_done_callback(resume)
        self._changed.set()
        return await future

    def _start(
        self, coroutine: Coroutine[Any, Any, T], parent: _Agent | None, on_done: Callable[[], None] | None
    ) -> asyncio.Task[T]:
        agent = _Agent(parent)
        self._agents.add(agent)
        if parent is not None:
            parent.children += 1

        async def run() -> T:
            # Each task has its own copy of the context, so this does not change the parent's agent.
            _current.set(agent)
            return await coroutine

        def done(task: asyncio.Task[T]) -> None:
            self._agents.discard(agent)
            self._tasks.discard(task)
            if parent is not None:
                parent.children -= 1
            elif on_done is not None and not task.cancelled():
                on_done()
            self._changed.set()

        task = asyncio.get_running_loop().create_task(run())
        task.add_done_callback(done)
        self._tasks.add(task)
        return task

    def _interrupt(self) -> None:
        """Cancel the play. Called from the thread that computes."""
        loop, worker = self._loop, self._worker
        if loop is not None and worker is not None:
            with suppress(RuntimeError):  # raised if the loop is already closed
                loop.call_soon_threadsafe(worker.cancel)

    async def _play(
        self,
        coroutines: Sequence[Coroutine[Any, Any, T]],
        on_done: Callable[[], None] | None,
        here: CallersThread,
        link: Link | None,
        meanwhile: Callable[[], bool] | None,
    ) -> list[T]:
        self._changed = asyncio.Event()
        self._stopping = False
        tasks = [self._start(coroutine, None, on_done) for coroutine in coroutines]
        self._loop = asyncio.get_running_loop()
        rounds = link if self.schedule == "rounds" else None
        worker = self._worker = self._loop.create_task(self._work(here, rounds, meanwhile))
        running = [worker]
        if link is not None and self.schedule == "eager":
            running.append(self._loop.create_task(link.run()))
        agents = asyncio.gather(*tasks)
        try:
            awaited: list[asyncio.Future[Any]] = [*running, agents]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            # The worker and the link never end by themselves: a done one has failed, and result() raises its error.
            for task in running:
                if task.done():
                    task.result()
            return await agents
        finally:
            await self._stop(running)
            await asyncio.gather(agents, return_exceptions=True)  # else asyncio logs "exception was never retrieved"

    async def _stop(self, running: Sequence[asyncio.Task[None]]) -> None:
        """Cancel all tasks and wait for their end, so that nothing keeps running after an error."""
        self._stopping = True
        left = [*running, *self._tasks]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # Cancelling the worker does not stop the model's thread. Wait for it before the engines drop their work.
        if self._computing is not None:
            with suppress(BaseException):  # the worker has raised this error already
                self._computing.exception()
        for engine, requests in self._waiting.items():
            if engine.busy or requests:
                engine.abort()
        self._waiting.clear()
        self._agents.clear()

    async def _work(self, here: CallersThread, link: Link | None, meanwhile: Callable[[], bool] | None) -> None:
        """The main loop: wait for a change, compute, deliver the turns. With a link, meet before each computation."""
        met = False
        while True:
            await self._wait(here, self._changed.wait(), meanwhile)
            self._changed.clear()
            # Let the callbacks of the turns just delivered run first, so that their agents do not look idle.
            await asyncio.sleep(0)
            if self.schedule == "rounds" and any(not agent.idle for agent in self._agents):
                continue
            if link is not None and not met:
                if self._agents:  # without agents the play is over
                    await self._wait(here, link.meet(), meanwhile)
                    met = True
                    self._changed.set()
                continue
            # The next round must come even if nothing changes in this process: others wait at the meeting.
            if link is not None:
                met = False
                self._changed.set()
            for engine, requests in self._take():
                self._computing = here.submit(self._compute, engine, requests)
                for request, turn in await asyncio.wrap_future(self._computing):
                    # A cancelled agent has cancelled its future, and to set a result would raise.
                    if not request.future.done():
                        request.future.set_result(turn)
                self._changed.set()

    async def _wait(
        self, here: CallersThread, event: Coroutine[Any, Any, object], meanwhile: Callable[[], bool] | None
    ) -> None:
        """Wait for an event, and do background work until it comes."""
        if meanwhile is None:
            await event
            return
        waiting = asyncio.ensure_future(event)
        try:
            while not (await asyncio.wait([waiting], timeout=PAUSE))[0]:
                self._computing = here.submit(meanwhile)
                if not await asyncio.wrap_future(self._computing):
                    break
            await waiting
        finally:
            waiting.cancel()

    def _take(self) -> list[tuple[Engine, list[Request]]]:
        """Take the waiting requests. Their order does not depend on which agent asked first."""
        work = []
        for engine in sorted(self._waiting, key=lambda engine: engine.name):
            requests = sorted(self._waiting[engine], key=lambda request: request.tokens.order)
            self._waiting[engine] = []
            if requests or engine.busy:
                work.append((engine, requests))
        return work

    def _compute(self, engine: Engine, requests: list[Request]) -> list[tuple[Request, SampledTurn]]:
        engine.admit(requests)
        ended = []
        while engine.busy and not self._stopping:
            ended += engine.advance(SLICE)
            if self.schedule == "eager":
                break
        return ended
