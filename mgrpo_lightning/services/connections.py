"""Keep HTTP connections between requests, for each event loop; resend a request if a kept connection was closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import cache
from typing import Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

import httpx2


class Closable(Protocol):
    """An object with connections."""

    async def aclose(self) -> None:
        """Close the connections."""
        ...


T = TypeVar("T", bound=Closable)
KEPT = 4.0
"""Seconds that an idle connection is kept. Less than the 5 after which common servers close theirs."""
CLOSED = (httpx2.RemoteProtocolError, httpx2.ReadError)
"""Errors of a connection that the server closed before it answered."""
certificates = cache(httpx2.create_ssl_context)
"""The machine's trusted certificates. Cached, because loading them takes longer than a request."""


def kept_connections(idle: int) -> httpx2.Limits:
    """Limits of a client: any number of connections, of which some are kept while they are idle.

    Args:
        idle: Maximum number of idle connections.
    """
    return httpx2.Limits(max_connections=None, max_keepalive_connections=idle, keepalive_expiry=KEPT)


class PerLoop(Generic[T]):
    """One object with connections per event loop. A connection works in one loop only, and every play has its own loop.

    Args:
        make: Makes the object at its first use in a loop; ``aclose`` is called when the loop ends.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._kept: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[T, None]]]
        self._kept = WeakKeyDictionary()

    async def get(self) -> T:
        """The object of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._kept:
            generator = self._until_the_end()
            self._kept[loop] = await anext(generator), generator
        return self._kept[loop][0]

    async def _until_the_end(self) -> AsyncGenerator[T, None]:
        # A generator, because asyncio.run closes those of its loop after the last task, whatever the tasks ended with.
        made = self._make()
        try:
            yield made
        finally:
            self._kept.pop(asyncio.get_running_loop(), None)  # open connections would keep the loop in memory
            await made.aclose()


async def send(client: httpx2.AsyncClient, request: httpx2.Request) -> httpx2.Response:
    """Send a request and return its response, whose body is not read yet; the caller closes it.

    A server may close an idle connection at the moment at which the request goes out on it. The request is then sent
    once more.

    Args:
        client: The client with the connections.
        request: A request of this client.

    Raises:
        httpx2.HTTPError: There is no response.
    """
    opened = False

    async def trace(event: str, info: object) -> None:
        nonlocal opened
        opened = opened or ".connect_tcp." in event

    request.extensions["trace"] = trace
    try:
        return await client.send(request, stream=True)
    except CLOSED:
        if opened:  # a new connection: the server failed on this request
            raise
        return await client.send(request, stream=True)
