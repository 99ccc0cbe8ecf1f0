"""Scheduler: run the agents of a play in an event loop and the model in the calling thread, by ``rounds`` or ``eager``.

Two schedules decide it: ``rounds.py`` and ``eager.py``, one loop each. The agents run in an event loop in a thread of
their own; the model computes in the thread that calls ``play`` (see ``model_thread.py``).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Literal, TypeVar

from mgrpo_lightning.policy.sampling.agent_tasks import AgentTasks
from mgrpo_lightning.policy.sampling.eager import play_eagerly
from mgrpo_lightning.policy.sampling.engine import Link
from mgrpo_lightning.policy.sampling.executor import MainThreadExecutor
from mgrpo_lightning.policy.sampling.model_thread import ModelThread
from mgrpo_lightning.policy.sampling.rounds import play_rounds

T = TypeVar("T")


class Scheduler(AgentTasks):
    """Runs agents and batches their turns.

    Args:
        schedule: ``rounds`` or ``eager`` (see the module docstring).
    """

    def __init__(self, schedule: Literal["rounds", "eager"] = "eager") -> None:
        super().__init__()
        self.schedule = schedule
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: asyncio.Task[None] | None = None
        self.idle = 0.0
        """Seconds of the last play without computation: all agents waited for tools or other processes."""

    def play(
        self,
        coroutines: Sequence[Coroutine[Any, Any, T]],
        on_done: Callable[[], None] | None = None,
        link: Link | None = None,
        background: Callable[[], bool] | None = None,
    ) -> list[T]:
        """Run agents to their end in their own thread, and the model in this one. Return the agents' results in order.

        Args:
            on_done: Called after each agent ends, in the agents' thread.
            link: Exchange with agents of other processes.
            background: Background work. Called in this thread when the model is idle; does one piece and returns
                whether there was one.

        Raises:
            BaseException: The first exception of an agent or the model. Everything else is cancelled first.
        """
        self._loop = self._worker = None
        here = MainThreadExecutor()
        model = ModelThread(here, background)
        playing: Future[list[T]] = Future()
        over = threading.Event()

        def run() -> None:
            if over.is_set():
                playing.cancel()
                return
            try:
                playing.set_result(asyncio.run(self._play(coroutines, on_done, model, link)))
            except BaseException as error:
                playing.set_exception(error)

        # A daemon: the interpreter must be able to exit while ``LivePlayers`` keeps a play open.
        agents = threading.Thread(target=run, name="agents", daemon=True)
        try:
            agents.start()  # an interrupt may come here, before the thread runs or after
            return here.serve(playing)
        finally:
            self.idle = here.idle
            over.set()  # before `ident` is read: a thread that has none yet will see it
            # Reached only after an interrupt of this thread. Repeat, as the loop may not have started yet.
            while agents.ident is not None and not playing.done():
                self._interrupt()
                wait([playing], timeout=0.1)
            if agents.ident is not None:
                agents.join()

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
        model: ModelThread,
        link: Link | None,
    ) -> list[T]:
        self.changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        results = asyncio.gather(*(self._start(coroutine, None, on_done) for coroutine in coroutines))
        running = [self._loop.create_task(loop) for loop in self._loops(model, link)]
        self._worker = running[0]
        try:
            awaited: list[asyncio.Future[Any]] = [*running, results]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            # The schedule ends after the agents, and the link never. If one has failed, result() raises its error.
            for task in running:
                if task.done():
                    task.result()
            return await results
        finally:
            await self._stop(running, model)
            await asyncio.gather(results, return_exceptions=True)  # else asyncio logs "exception was never retrieved"

    def _loops(self, model: ModelThread, link: Link | None) -> list[Coroutine[Any, Any, None]]:
        """The schedule's loop, and under ``eager`` the link's, which exchanges messages all the time."""
        if self.schedule == "rounds":
            return [play_rounds(self, model, link)]
        return [play_eagerly(self, model), *([] if link is None else [link.run()])]

    async def _stop(self, running: Sequence[asyncio.Task[None]], model: ModelThread) -> None:
        """Cancel all tasks and wait for their end, so that nothing keeps running after an error."""
        model.stop()
        left = [*running, *self.tasks.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        model.join()  # before the engines drop their work
        self._drop()
