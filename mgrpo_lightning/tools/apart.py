"""Calls of tools that may wait for anything: each has a time limit, and functions run in threads that nobody waits for.

Python cannot end a thread. One whose function never returns is left behind: play goes on without it, and as a daemon
it keeps no process alive.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

_current: contextvars.ContextVar[Limit | None] = contextvars.ContextVar("limit", default=None)


class Limit:
    """An ``async with`` block that ends after some seconds with a TimeoutError.

    Args:
        seconds: May be infinite.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._since = 0.0

    @property
    def passed(self) -> bool:
        """Whether the block was ended by this limit, and not by a TimeoutError of its own."""
        return self._timeout.expired()

    def restart(self) -> None:
        """All seconds from now on: what was waited for has moved."""
        self._since = asyncio.get_running_loop().time()
        if math.isfinite(self._seconds) and not self.passed:
            self._timeout.reschedule(self._since + self._seconds)

    def give_up(self) -> None:
        """End now if most of the seconds have gone: what was waited for will not move."""
        now = asyncio.get_running_loop().time()
        if now - self._since > self._seconds / 2 and not self.passed:
            self._timeout.reschedule(now)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._token = _current.set(self)
        self.restart()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        await self._timeout.__aexit__(kind, error, trace)


class Apart:
    """Runs a function in threads, one call after another, in their order.

    A call that waits for its turn has its ``Limit`` again whenever one before it returns. So a slow function may have
    a long queue. If one before it passes its limit instead, those that have waited as long end with it: a function that
    always hangs costs its queue one limit, not one for each call.

    Args:
        function: Of a user.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        # Every step is played in an event loop of its own.
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    async def __call__(self, **arguments: object) -> Any:
        """Run it; what it raises is raised here. A call that is cancelled leaves its thread behind."""
        queue = self._queues.setdefault(asyncio.get_running_loop(), _Queue())
        limit = _current.get() or Limit(math.inf)
        queue.waiting.add(limit)
        try:
            await queue.lock.acquire()
        finally:
            queue.waiting.discard(limit)
        limit.restart()
        try:
            result, error = await _in_a_thread(lambda: self._function(**arguments))
        except asyncio.CancelledError:
            for one in queue.waiting:
                one.give_up()
            raise
        finally:
            queue.lock.release()
        for one in queue.waiting:
            one.restart()
        if error is not None:
            raise error
        return result


class _Queue:
    """The calls of one event loop."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting: set[Limit] = set()


async def _in_a_thread(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def tell(outcome: tuple[Any, BaseException | None]) -> None:
        if not ended.done():
            ended.set_result(outcome)

    def run() -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = call(), None
        except BaseException as error:  # whatever it is, it ends this call and nothing else
            outcome = None, error
        with suppress(RuntimeError):  # of a loop that has gone on without it
            loop.call_soon_threadsafe(tell, outcome)

    context = contextvars.copy_context()
    # No executor: those of asyncio and concurrent.futures are joined at the end of a play or of the process.
    threading.Thread(target=context.run, args=(run,), name="tool", daemon=True).start()
    return await ended
