"""MainThreadExecutor: any thread may submit a call; the thread in ``serve`` runs it, and counts its idle seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class MainThreadExecutor(Executor):
    """Main-thread executor: any thread may submit work, and ``serve`` runs it in the thread that calls it."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self.idle = 0.0
        """Seconds that ``serve`` spent waiting for work."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue the call ``fn(*args, **kwargs)``; return a future of its result."""
        future: Future[T] = Future()
        self._jobs.put((future, partial(fn, *args, **kwargs)))
        return future

    def serve(self, last: Future[T]) -> T:
        """Run submitted work until the future ``last`` is done; return the result of ``last``.

        Args:
            last: The future of the thread that submits the work.

        Raises:
            BaseException: The exception of ``last``; or at once an interrupt of this thread (``KeyboardInterrupt``).
        """
        # None wakes up the blocking get below when the submitting thread has ended.
        last.add_done_callback(lambda _: self._jobs.put(None))
        while (job := self._next()) is not None:
            _do(*job)
        return last.result()

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        started = time.perf_counter()
        try:
            return self._jobs.get()
        finally:
            self.idle += time.perf_counter() - started


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        if future.set_running_or_notify_cancel():
            future.set_result(work())
    except BaseException as error:
        if not future.done():
            future.set_exception(error)
        # KeyboardInterrupt and SystemExit must also end `serve` in this thread.
        if not isinstance(error, Exception):
            raise
