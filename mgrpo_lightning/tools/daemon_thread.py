"""Run a user's blocking function in a daemon thread, one call at a time (Apart), with a restartable timeout (Limit).

Python cannot end a thread. If a function never returns, play goes on without its thread. The thread is a daemon, so it
does not keep the process alive.
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
    """A time limit that can be restarted: an ``async with`` block that raises TimeoutError when it has passed.

    Args:
        seconds: Time limit in seconds; may be infinite.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._since = 0.0

    @property
    def passed(self) -> bool:
        """Whether this limit ended the block; a TimeoutError from inside of the block does not count."""
        return self._timeout.expired()

    def restart(self) -> None:
        """Start the limit again from now; called when the queue that the block waits in has moved."""
        self._since = asyncio.get_running_loop().time()
        if math.isfinite(self._seconds) and not self.passed:
            self._timeout.reschedule(self._since + self._seconds)

    def give_up(self) -> None:
        """End the block now if more than half of the limit has passed; called when the running call has hung."""
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
    """Runs a function in threads, one call at a time, in the order of the calls.

    While a call waits in the queue, its ``Limit`` restarts whenever a call before it returns. So a slow function may
    have a long queue. If the running call passes its limit instead, the calls that have waited for more than half of
    theirs end with it. So a function that always hangs costs its queue one limit in total, and not one for each call.

    Args:
        function: The user's sync function.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        # One queue for each event loop: an asyncio.Lock works in one loop only, and every play has its own.
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    async def __call__(self, **arguments: object) -> Any:
        """Run the function and return its result or raise its exception. A cancelled call leaves its thread behind."""
        queue = self._queues.setdefault(asyncio.get_running_loop(), _Queue())
        limit = _current.get() or Limit(math.inf)
        queue.waiting.add(limit)
        try:
            await queue.lock.acquire()
        finally:
            queue.waiting.discard(limit)
        # Waiting in the queue does not count against the run itself.
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
        # Only now: a call that raises has also moved the queue.
        if error is not None:
            raise error
        return result


class _Queue:
    """The waiting calls of one event loop, and the lock that the running call holds."""

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
        except BaseException as error:  # even SystemExit ends only this call
            outcome = None, error
        with suppress(RuntimeError):  # the loop may be closed: play went on without this thread
            loop.call_soon_threadsafe(tell, outcome)

    # The thread sees the context variables of the call, like an awaited function.
    context = contextvars.copy_context()
    # No executor: asyncio and concurrent.futures join their threads when a loop or the process ends, and would hang.
    threading.Thread(target=context.run, args=(run,), name="tool", daemon=True).start()
    return await ended
