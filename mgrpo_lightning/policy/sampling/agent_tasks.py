"""AgentTasks: the agents of a play as asyncio tasks: who waits for turns or children; take requests, deliver turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from mgrpo_lightning.policy.sampling.base import SampledTurn, SamplingParams
from mgrpo_lightning.policy.sampling.conversation import Request, Tokens
from mgrpo_lightning.policy.sampling.engine import Engine, Finished

T = TypeVar("T")


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


class AgentTasks:
    """The agents' side of the scheduler: what an agent calls, and what a schedule sees of the agents."""

    def __init__(self) -> None:
        self.tasks: dict[_Agent, asyncio.Task[Any]] = {}
        """The running agents, children included."""
        self.changed = asyncio.Event()
        """Set when an agent ends, requests a turn, or begins to wait for its children."""
        self._waiting: dict[Engine, list[Request]] = {}

    # Agents call the following methods.

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
        self.changed.set()
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
        self.changed.set()
        return await future

    # The schedules call the following methods, in the agents' thread.

    @property
    def all_idle(self) -> bool:
        """Whether no agent can continue before a turn or an answer of another process."""
        return all(agent.idle for agent in self.tasks)

    async def change(self) -> None:
        """Wait until something changed since the last call, and let the agents that it concerns go on first."""
        await self.changed.wait()
        self.changed.clear()
        await asyncio.sleep(0)

    def take(self) -> list[tuple[Engine, list[Request]]]:
        """Take the waiting requests. Their order does not depend on which agent asked first."""
        work = []
        for engine in sorted(self._waiting, key=lambda engine: engine.name):
            requests = sorted(self._waiting[engine], key=lambda request: request.tokens.order)
            self._waiting[engine] = []
            if requests or engine.busy:
                work.append((engine, requests))
        return work

    def deliver(self, turns: Finished) -> None:
        """Give turns to the agents that requested them."""
        for request, turn in turns:
            # A cancelled agent has cancelled its future, and to set a result would raise.
            if not request.future.done():
                request.future.set_result(turn)

    def _start(
        self, coroutine: Coroutine[Any, Any, T], parent: _Agent | None, on_done: Callable[[], None] | None
    ) -> asyncio.Task[T]:
        agent = _Agent(parent)
        if parent is not None:
            parent.children += 1

        async def run() -> T:
            # Each task has its own copy of the context, so this does not change the parent's agent.
            _current.set(agent)
            return await coroutine

        def done(task: asyncio.Task[T]) -> None:
            self.tasks.pop(agent, None)
            if parent is not None:
                parent.children -= 1
            elif on_done is not None and not task.cancelled():
                on_done()
            self.changed.set()

        task = self.tasks[agent] = asyncio.get_running_loop().create_task(run())
        task.add_done_callback(done)
        return task

    def _drop(self) -> None:
        """Forget all agents and drop their unfinished turns, after the end of a play."""
        for engine, requests in self._waiting.items():
            if engine.busy or requests:
                engine.abort()
        self._waiting.clear()
        self.tasks.clear()
