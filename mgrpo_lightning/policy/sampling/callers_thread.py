"""CallersThread: an executor whose work is done by the thread that waits for its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class CallersThread(Executor):
    """Takes work from any thread; ``serve`` does it in its own."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self.idle = 0.0
        """Seconds in which ``serve`` had nothing to do."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand in one piece of work.

        Args:
            fn: What to call.
            args: For it.
            kwargs: For it.
        """
        future: Future[T] = Future()
        self._jobs.put((future, partial(fn, *args, **kwargs)))
        return future

    def serve(self, last: Future[T]) -> T:
        """Do what is handed in, until another future is done; its result.

        Args:
            last: Of the thread that hands work in.

        Raises:
            BaseException: What ``last`` raises; or what interrupts this thread (``KeyboardInterrupt``), at once.
        """
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
        if not isinstance(error, Exception):
            raise
