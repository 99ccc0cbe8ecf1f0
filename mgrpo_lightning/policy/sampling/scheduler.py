"""Scheduler: plays agents (coroutines) and decides when the turns they wait for are computed.

``rounds``: a batch starts only when no agent can go on by itself: each one waits for a turn, or for sub-agents that do.
So what is in a batch, and its order, is a function of the step alone, however long the tools took: bitwise
reproducible.
``eager``: whatever waits is computed, in slices between which new turns join, while tools run.

Model work is done in the thread that plays, where updates are computed too; the event loop, which never computes, has
one of its own. OpenMP keeps a team of threads for each thread that computes: two teams on the same cores make decoding
up to twice as slow.
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
"""Decoding steps between two looks at what else waits."""
PAUSE = 0.005
"""Seconds without anything to compute before other work begins, of which a piece may take seconds."""


class Link(Protocol):
    """What a play has to do with agents of other processes."""

    async def meet(self) -> None:
        """Under ``rounds``, at the end of each: hand over what was said in it, and take what others said in theirs."""
        ...

    async def run(self) -> None:
        """Under ``eager``: do so all the time, until it is cancelled."""
        ...


class Engine(Protocol):
    """What the scheduler needs of a sampler; all but ``name`` is called while nothing else is computed."""

    name: str

    @property
    def busy(self) -> bool:
        """Whether any admitted turn is not finished."""
        ...

    def admit(self, requests: Sequence[Request]) -> None:
        """Take requests."""
        ...

    def advance(self, steps: int) -> list[tuple[Request, SampledTurn]]:
        """Compute; return the turns that ended."""
        ...

    def abort(self) -> None:
        """Drop all work."""
        ...


@dataclass(eq=False)
class _Agent:
    """What one coroutine is doing, as far as the schedule cares."""

    parent: _Agent | None = None
    waiting: int = 0
    """Turns it waits for."""
    blocked: bool = False
    """It waits for its children."""
    children: int = 0
    """Live ones, and calls of other processes that are not answered."""

    @property
    def idle(self) -> bool:
        """It cannot go on by itself. A parent can from the moment its last child is done, before it has woken up."""
        return self.waiting > 0 or (self.blocked and self.children > 0)


_current: ContextVar[_Agent] = ContextVar("agent")


class Scheduler:
    """Plays agents.

    Args:
        schedule: ``rounds`` or ``eager``, see above.
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
        """Seconds of the last play in which nothing was computed: everybody waited for tools or other processes."""

    def play(
        self,
        coroutines: Sequence[Coroutine[Any, Any, T]],
        on_done: Callable[[], None] | None = None,
        link: Link | None = None,
        meanwhile: Callable[[], bool] | None = None,
    ) -> list[T]:
        """Run agents to their end in a thread and event loop of their own, and compute in this one; results in order.

        Args:
            coroutines: The agents.
            on_done: Called after each of them, in the agents' thread.
            link: To agents of other processes.
            meanwhile: Called in this thread when there is nothing to compute, to do a piece of other work; whether
                there was one.

        Raises:
            BaseException: What an agent or the model raised first; everything else is cancelled.
        """
        self._loop = self._worker = None
        here = CallersThread()
        with ThreadPoolExecutor(1, thread_name_prefix="agents") as pool:
            playing = pool.submit(lambda: asyncio.run(self._play(coroutines, on_done, here, link, meanwhile)))
            try:
                return here.serve(playing)
            finally:
                self.idle = here.idle
                while not playing.done():  # this thread was interrupted, and serves no more
                    self._interrupt()
                    wait([playing], timeout=0.1)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a child of the agent that calls this; await it inside ``blocked()``. A link's has no parent."""
        return self._start(coroutine, _current.get(None), None)

    async def elsewhere(self, answer: asyncio.Future[T]) -> T:
        """Wait for what another process answers, as for a child.

        Args:
            answer: Set by the link.
        """
        agent = _current.get()
        agent.children += 1

        def resume(_: asyncio.Future[T]) -> None:
            agent.children -= 1

        answer.add_done_callback(resume)
        return await answer

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """The block in which an agent awaits its children, and nothing else."""
        agent = _current.get()
        agent.blocked = True
        self._changed.set()
        try:
            yield
        finally:
            agent.blocked = False

    async def submit(self, engine: Engine, tokens: Tokens, params: SamplingParams, stream: int) -> SampledTurn:
        """Wait for one turn of ``engine``."""
        agent = _current.get()
        future: asyncio.Future[SampledTurn] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(engine, []).append(Request(tokens, params, stream, future))

        def resume(_: asyncio.Future[SampledTurn]) -> None:
            agent.waiting -= 1

        agent.waiting += 1
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
        """End what is played, from the thread that computes."""
        loop, worker = self._loop, self._worker
        if loop is not None and worker is not None:
            with suppress(RuntimeError):  # of a loop that has ended by itself
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
            for task in running:
                if task.done():
                    task.result()
            return await agents
        finally:
            await self._stop(running)
            await asyncio.gather(agents, return_exceptions=True)  # or asyncio complains that nobody looked

    async def _stop(self, running: Sequence[asyncio.Task[None]]) -> None:
        """Cancel what is left and wait for it, so that nothing runs on behind an error."""
        self._stopping = True
        left = [*running, *self._tasks]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._computing is not None:
            with suppress(BaseException):  # what was raised there has reached the worker
                self._computing.exception()
        for engine, requests in self._waiting.items():
            if engine.busy or requests:
                engine.abort()
        self._waiting.clear()
        self._agents.clear()

    async def _work(self, here: CallersThread, link: Link | None, meanwhile: Callable[[], bool] | None) -> None:
        """Wait for a reason to compute, compute, hand out turns, forever; with a link, meet before each time."""
        met = False
        while True:
            await self._wait(here, self._changed.wait(), meanwhile)
            self._changed.clear()
            # Turns handed out just now are still to reach their agents.
            await asyncio.sleep(0)
            if self.schedule == "rounds" and any(not agent.idle for agent in self._agents):
                continue
            if link is not None and not met:
                if self._agents:  # or the play is over
                    await self._wait(here, link.meet(), meanwhile)
                    met = True
                    self._changed.set()
                continue
            if link is not None:  # the next round comes though nothing changes here
                met = False
                self._changed.set()
            for engine, requests in self._take():
                self._computing = here.submit(self._compute, engine, requests)
                for request, turn in await asyncio.wrap_future(self._computing):
                    if not request.future.done():
                        request.future.set_result(turn)
                self._changed.set()

    async def _wait(
        self, here: CallersThread, event: Coroutine[Any, Any, object], meanwhile: Callable[[], bool] | None
    ) -> None:
        """Wait for an event, and do other work until it comes."""
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
        """What is to be computed now, in an order that does not depend on who asked first."""
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
