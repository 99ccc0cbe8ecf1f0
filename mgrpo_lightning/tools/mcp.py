"""McpTools: list and call the tools of an MCP server (HTTP, subprocess or in this process); reconnect after it dies.

A connection belongs to one event loop, and every play has its own event loop. So the connection has its own thread with
a permanent event loop, from the construction of ``McpTools`` to the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.ranges import Seconds, ranged
from mgrpo_lightning.services.settings import shown_url
from mgrpo_lightning.tools.base import Tool, imported
from mgrpo_lightning.tools.declared import declared
from mgrpo_lightning.tools.sets import ToolSet
from mgrpo_lightning.unicode import encodable

log = logging.getLogger(__name__)
T = TypeVar("T")
AGAIN = 3
"""Tries to reconnect after a server has died."""
MOST_DEATHS = 8
"""Maximum deaths of a server in a row, without an answer in between; one more ends the run."""
TO_END = 10.0
"""Seconds that closing a connection may take on top of its timeout; a subprocess is killed after 2."""
MOST_PAGES = 100
"""Maximum pages of a server's list of tools."""


@ranged("tools")
class McpTools(ToolSet):
    """The tools of one MCP server. Exactly one of ``url``, ``command`` and ``server`` must be given.

    Args:
        url: URL of a server with the streamable HTTP transport.
        command: Program and arguments of a server with the stdio transport, which is started as a subprocess.
        server: Dotted path of a server object in this process, or of a function without arguments that makes one.
        only: Names of the tools to use; None uses all.
        timeout: Timeout of a call and of connecting, in seconds.

    Raises:
        ConfigurationError: Not exactly one server is given, the package is missing, the server does not answer, or it
            has no tool of a name in ``only``.
    """

    def __init__(
        self,
        url: str | None = None,
        command: Sequence[str] | None = None,
        server: str | None = None,
        only: Sequence[str] | None = None,
        timeout: Seconds = 60.0,
    ) -> None:
        given = {name: one for name, one in (("url", url), ("command", command), ("server", server)) if one}
        if len(given) != 1:
            raise ConfigurationError(
                f"an MCP server is defined by {sorted(given) or 'nothing'}.",
                hint="give one of url, command and server.",
            )
        self._server = _Server(partial(_target, url, command, server), shown(url, command, server), timeout)
        found = {tool.name: tool for tool in self._server.listed}
        if missing := [name for name in only or () if name not in found]:
            self.close()
            raise ConfigurationError(
                f"the MCP server {self._server.where} has no tool {missing[0]!r}.",
                hint=f"use its tools: {sorted(found)}.",
            )
        try:
            self._tools = [_McpTool(found[name], self._server) for name in (only or found)]
        except ConfigurationError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection and end a server that it started. The end of the process does the same."""
        self._server.close()

    @override
    def tools(self) -> Sequence[Tool]:
        return self._tools


class _McpTool:
    """One tool of an MCP server; see ``Tool``."""

    def __init__(self, described: Any, server: _Server) -> None:
        self.name: str = described.name
        self.description: str = encodable(described.description or "")
        self.parameters = declared(self.name, described.input_schema)
        self._server = server

    async def __call__(self, /, **arguments: object) -> str:
        result = await self._server.call(self.name, arguments)
        texts = [text for block in result.content if (text := getattr(block, "text", None))]
        if result.is_error:
            raise ToolError(f"{self.name} failed: {' '.join(texts) or 'no reason given'}")
        if not texts:
            raise ToolError(f"{self.name} returned no text.", hint="try another tool.")
        return "\n".join(texts)


class _Server:
    """A server with automatic reconnection after it has died; the run ends if it does not come back."""

    def __init__(self, target: Callable[[], Any], where: str, timeout: float) -> None:
        self.where = where
        self._target = target
        self._timeout = timeout
        self._deaths = 0
        """Deaths since its last answer."""
        self._told = False
        # One lock for each event loop: an asyncio.Lock works in one loop only, and every play has its own.
        self._mending: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        try:
            self._connection = _Connection(target(), timeout)
            self._connection.opened.result(timeout)
            self.listed = self._connection.start(self._connection.list_tools()).result(timeout)
        except ImportError as error:
            raise ConfigurationError(
                f"MCP tools cannot be imported: {error}.", hint="run pip install 'mgrpo-lightning[mcp]'."
            ) from error
        except Exception as error:  # each transport raises its own errors
            self.close()
            raise ConfigurationError(
                f"the MCP server {where} does not answer: {self._reason(error)}.",
                hint="start it, or correct its url or command.",
            ) from error

    async def call(self, name: str, arguments: dict[str, object]) -> Any:
        """Call a tool and return the server's result.

        Raises:
            ToolError: The call failed, but the server lives or was reconnected.
            ConfigurationError: The server has died and does not come back.
        """
        connection = self._connection
        try:
            found = await asyncio.wrap_future(connection.start(connection.call(name, arguments)))
        except Exception as error:  # each transport raises its own errors
            failed = f"{name} failed: {self._reason(error)}"
            # A failed call alone does not show whether the server died; listing its tools does.
            if await self._lives(connection):
                raise ToolError(failed) from error
            async with self._mending.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
                if self._connection is connection:  # no other call has reconnected in the meantime
                    await self._connect_again(connection, failed)
            raise ToolError(f"{failed}; its server was restarted.", hint="call it again.") from error
        self._deaths = 0
        return found

    def close(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()

    async def _lives(self, connection: _Connection) -> bool:
        try:
            await asyncio.wait_for(asyncio.wrap_future(connection.start(connection.list_tools())), self._timeout)
        except Exception:  # each transport raises its own errors
            return False
        return True

    async def _connect_again(self, broken: _Connection, failed: str) -> None:
        broken.end()
        self._deaths += 1
        problem = failed
        for attempt in range(AGAIN if self._deaths <= MOST_DEATHS else 0):
            await asyncio.sleep(attempt)
            connection = _Connection(self._target(), self._timeout)
            try:
                await asyncio.wait_for(asyncio.wrap_future(connection.opened), self._timeout)
            except asyncio.CancelledError:
                connection.end()
                raise
            except Exception as error:  # each transport raises its own errors
                connection.end()
                problem = self._reason(error)
                continue
            self._connection = connection
            if not self._told:
                log.warning("the MCP server %s died (%s) and was reconnected. This is logged once", self.where, failed)
            self._told = True
            return
        raise ConfigurationError(
            f"the MCP server {self.where} died and cannot be reconnected: {problem}.",
            hint="repair or start it, then resume.",
        )

    def _reason(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):  # nested task groups wrap the cause
            error = error.exceptions[0]
        if isinstance(error, TimeoutError) and not str(error):
            return f"no answer within {self._timeout:g} s"
        return f"{type(error).__name__}: {error}"


class _Connection:
    """An MCP client with its own thread and event loop."""

    def __init__(self, target: Any, timeout: float) -> None:
        from mcp import Client

        self._timeout = timeout
        self._client = Client(target, read_timeout_seconds=timeout)
        self.opened: Future[None] = Future()
        self.opened.set_running_or_notify_cancel()  # running: a waiter that gives up cannot cancel it
        self._closed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._staying = self._loop.create_task(self._stay())
        self._thread = threading.Thread(target=self._run, name="MCP", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop is closed: the server has died
            work.close()
            raise

    def end(self) -> None:
        """Start closing, without waiting for the end."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stop)

    def close(self) -> None:
        self.end()
        self._thread.join(self._timeout + TO_END)

    async def list_tools(self) -> list[Any]:
        found, cursor = [], None
        for _ in range(MOST_PAGES):
            page = await self._client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if not cursor:
                return found
        raise ValueError(f"its list of tools has more than {MOST_PAGES} pages")

    async def call(self, name: str, arguments: dict[str, object]) -> Any:
        return await asyncio.wait_for(self._client.call_tool(name, arguments), self._timeout)

    def _stop(self) -> None:
        self._closed.set()
        if not self.opened.done():
            self._staying.cancel()

    def _run(self) -> None:
        with contextlib.closing(self._loop), contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._staying)

    async def _stay(self) -> None:
        # The client must be entered and left in the same task, so this task holds it open until `end`.
        try:
            async with self._client:
                self.opened.set_result(None)
                await self._closed.wait()
        except BaseException as error:
            if not self.opened.done():
                self.opened.set_exception(error)


def shown(url: str | None, command: Sequence[str] | None, server: str | None) -> str:
    """Name of a server for messages, without possible secrets: user name, query, and arguments of the program.

    The parameters are those of ``McpTools``.
    """
    if url:
        return repr(shown_url(url))
    return repr(command[0] if command else server)


def _target(url: str | None, command: Sequence[str] | None, server: str | None) -> Any:
    if url:
        return url
    if command:
        from mcp.client.stdio import StdioServerParameters

        return StdioServerParameters(command=command[0], args=list(command[1:]))
    assert server is not None
    found = imported(server)
    make: Callable[[], Any] | None = found if callable(found) and not hasattr(found, "call_tool") else None
    return make() if make else found
