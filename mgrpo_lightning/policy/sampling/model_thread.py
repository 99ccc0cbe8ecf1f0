"""ModelThread: compute turns, slices of turns and background updates in the thread of ``play``, for coroutines.

The model computes in the thread that calls ``Scheduler.play``; updates are computed there too. The agents' event loop
has its own thread and computes nothing. OpenMP keeps a team of threads for each thread that computes, and two teams on
the same cores make decoding up to twice as slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from mgrpo_lightning.policy.sampling.conversation import Request
from mgrpo_lightning.policy.sampling.engine import SLICE, Engine, Finished
from mgrpo_lightning.policy.sampling.executor import MainThreadExecutor

T = TypeVar("T")
PAUSE = 0.005
"""Seconds that the model must be idle before background work starts. One piece of it may take seconds."""


class ModelThread:
    """Computes in the playing thread, for coroutines of the agents' event loop.

    Args:
        here: Executor of the playing thread.
        background: Background work, see ``Scheduler.play``.
    """

    def __init__(self, here: MainThreadExecutor, background: Callable[[], bool] | None) -> None:
        self._here = here
        self._background = background
        self._computing: Future[Any] | None = None
        self._stopping = False

    async def one_slice(self, engine: Engine, requests: list[Request]) -> Finished:
        """Admit turns and compute ``SLICE`` decoding steps; returns the turns that ended."""

        def compute() -> Finished:
            engine.admit(requests)
            return engine.advance(SLICE)

        return await self._do(compute)

    async def whole_turns(self, engine: Engine, requests: list[Request]) -> Finished:
        """Admit turns and compute until none is left; returns all of them."""

        def compute() -> Finished:
            engine.admit(requests)
            ended = []
            # In slices, so that an interrupted play does not wait for the end of long turns.
            while engine.busy and not self._stopping:
                ended += engine.advance(SLICE)
            return ended

        return await self._do(compute)

    async def wait(self, event: Coroutine[Any, Any, object]) -> None:
        """Wait for an event, and do background work until it comes."""
        if self._background is None:
            await event
            return
        waiting = asyncio.ensure_future(event)
        try:
            while not (await asyncio.wait([waiting], timeout=PAUSE))[0]:
                if not await self._do(self._background):
                    break
            await waiting
        finally:
            waiting.cancel()

    def stop(self) -> None:
        """Compute no further slice of the current turns."""
        self._stopping = True

    def join(self) -> None:
        """Wait until the playing thread computes nothing. A cancelled coroutine does not stop its computation."""
        if self._computing is not None:
            with suppress(BaseException):  # the schedule has raised this error already
                self._computing.exception()

    async def _do(self, work: Callable[[], T]) -> T:
        future = self._computing = self._here.submit(work)
        return await asyncio.wrap_future(future)
