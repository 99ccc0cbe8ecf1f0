"""LivePlayers: players that stay ready. Requests come at any time from any thread and join the running batch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.records.trajectory import Group


class LivePlayers:
    """Plays requests as they come, until it is closed.

    One thread computes the turns of all requests; it is started by the first request. A request whose future is
    cancelled leaves the batch.

    Args:
        players: The players, whose scheduler has the schedule ``eager``: under ``rounds`` each request would wait for
            the tools of all others.
    """

    def __init__(self, players: Players) -> None:
        assert players.scheduler.schedule == "eager"
        self._players = players
        self.seats = players.seats
        """What each role needs to play, by role."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._asked: set[Future[list[Group]]] = set()
        """Futures of the requests in play."""
        self._closed: BaseException | None = None
        """Why no request is taken any more."""

    def play(self, request: PlayRequest) -> Future[list[Group]]:
        """Start to play a request.

        Args:
            request: The questions, and how they are played.

        Returns:
            A future of the groups, not scored. To cancel it stops the play of this request.

        Raises:
            MgrpoError: The players are closed, or the model has failed.
        """
        future: Future[list[Group]] = Future()
        with self._lock:
            if self._closed is not None:
                raise MgrpoError(f"the team plays no more: {self._closed}", hint="load it again.") from self._closed
            if self._thread is None:
                self._thread = threading.Thread(target=self._compute, name="live-players", daemon=True)
                self._thread.start()
            self._asked.add(future)
        self._ready.wait()
        self._call(partial(self._begin, request, future))
        return future

    def close(self) -> None:
        """Cancel what is in play and end the thread. A second call does nothing."""
        with self._lock:
            if self._closed is None:
                self._closed = MgrpoError("it was closed.")
            thread = self._thread
        if thread is None:
            return
        self._ready.wait()
        self._call(self._closing.set)
        thread.join()

    def _compute(self) -> None:
        """The thread that computes: one play, which lasts as long as its first agent, the door."""
        why: BaseException = MgrpoError("it was closed.")
        try:
            self._players.scheduler.play([self._door()])
        except BaseException as error:
            why = error
        with self._lock:
            self._closed = self._closed or why
            left, self._asked = self._asked, set()
        self._ready.set()  # the play may have failed before the door was open
        for future in left:
            with suppress(asyncio.InvalidStateError):
                future.set_exception(why)

    async def _door(self) -> None:
        """Keep the play open until ``close``, then cancel the requests in play."""
        self._closing = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._closing.wait()
        with self._lock:
            left = list(self._asked)
        for future in left:
            future.cancel()

    def _begin(self, request: PlayRequest, future: Future[list[Group]]) -> None:
        """Start the agents of a request. Called in the agents' event loop."""
        task = self._players.scheduler.spawn(self._players.join(request))
        task.add_done_callback(partial(self._end, future))
        future.add_done_callback(lambda done: self._call(task.cancel) if done.cancelled() else None)

    def _end(self, future: Future[list[Group]], task: asyncio.Task[list[Group]]) -> None:
        if task.cancelled() and not future.cancelled():
            return  # the whole play ends, and `_compute` knows why
        with self._lock:
            self._asked.discard(future)
        error = None if task.cancelled() else task.exception()
        if not future.set_running_or_notify_cancel():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())

    def _call(self, work: Callable[[], object]) -> None:
        """Have the agents' event loop do something; nothing if it has ended."""
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(work)
