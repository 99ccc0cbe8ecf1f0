"""McpTools: the tools of an MCP server, over HTTP, as a subprocess, or in this process.

A connection belongs to one event loop, and every play has a loop of its own. So the connection lives in a thread with a
loop that stays, from the first call to the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from importlib import import_module
from typing import Any, TypeVar

from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.tools.base import Tool
from mgrpo_lightning.tools.sets import ToolSet

T = TypeVar("T")


class McpTools(ToolSet):
    """What one server offers.

    Args:
        url: Of a server that speaks streamable HTTP; or
        command: the program and arguments of one that speaks over its standard input and output; or
        server: the dotted path of a server object in this process, or of a function without arguments that makes one.
        only: Names of the tools to take; None takes all.
        timeout: Seconds until a call, or the connection, counts as failed.

    Raises:
        ConfigurationError: Not just one of the three is given, the package is missing, the server does not answer, or
            it lacks one of the tools.
    """

    def __init__(
        self,
        url: str | None = None,
        command: Sequence[str] | None = None,
        server: str | None = None,
        only: Sequence[str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        given = {name: one for name, one in (("url", url), ("command", command), ("server", server)) if one}
        if len(given) != 1:
            raise ConfigurationError(
                f"an MCP server is given by {sorted(given) or 'nothing'}.", hint="give one of url, command and server."
            )
        (where,) = given.values()
        try:
            self._connection = _Connection(_target(url, command, server), timeout)
            listed = self._connection.wait(self._connection.list_tools())
        except ImportError as error:
            raise ConfigurationError(
                f"MCP tools cannot be imported: {error}.", hint="pip install 'mgrpo-lightning[mcp]'."
            ) from error
        except Exception as error:  # whatever its transport raises
            raise ConfigurationError(
                f"the MCP server {where!r} does not answer: {type(error).__name__}: {error}.", hint="is it running?"
            ) from error
        found = {tool.name: tool for tool in listed}
        if missing := [name for name in only or () if name not in found]:
            self.close()
            raise ConfigurationError(
                f"the MCP server {where!r} has no tool {missing[0]!r}.", hint=f"it has {sorted(found)}."
            )
        self._tools = [_McpTool(found[name], self._connection) for name in (only or found)]

    def close(self) -> None:
        """End the connection, and a server that was started for it; a process that ends does it too."""
        self._connection.close()

    @override
    def tools(self) -> Sequence[Tool]:
        return self._tools


class _McpTool:
    """One tool of a server; see ``Tool``."""

    def __init__(self, described: Any, connection: _Connection) -> None:
        self.name: str = described.name
        self.description: str = described.description or ""
        self.parameters: dict[str, object] = dict(described.input_schema)
        self._connection = connection

    async def __call__(self, **arguments: object) -> str:
        try:
            result = await asyncio.wrap_future(self._connection.start(self._connection.call(self.name, arguments)))
        except Exception as error:  # whatever its transport raises
            raise ToolError(f"{self.name} failed: {type(error).__name__}: {error}") from error
        texts = [text for block in result.content if (text := getattr(block, "text", None))]
        if result.is_error:
            raise ToolError(f"{self.name} failed: {' '.join(texts) or 'no reason given'}")
        if not texts:
            raise ToolError(f"{self.name} gave no text.", hint="another tool may.")
        return "\n".join(texts)


class _Connection:
    """A client in a thread of its own."""

    def __init__(self, target: Any, timeout: float) -> None:
        from mcp import Client

        self._timeout = timeout
        self._client = Client(target, read_timeout_seconds=timeout)
        self._opened: Future[None] = Future()
        self._closed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="MCP", daemon=True)
        self._thread.start()
        try:
            self._opened.result(timeout)
        except BaseException:
            self.close()
            raise

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closed.set)
            self._thread.join(self._timeout)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.start(work).result(self._timeout)

    async def list_tools(self) -> list[Any]:
        found, cursor = [], None
        while True:
            page = await self._client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if not cursor:
                return found

    async def call(self, name: str, arguments: dict[str, object]) -> Any:
        return await asyncio.wait_for(self._client.call_tool(name, arguments), self._timeout)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._stay())

    async def _stay(self) -> None:
        try:
            async with self._client:
                self._opened.set_result(None)
                await self._closed.wait()
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)


def _target(url: str | None, command: Sequence[str] | None, server: str | None) -> Any:
    if url:
        return url
    if command:
        from mcp.client.stdio import StdioServerParameters

        return StdioServerParameters(command=command[0], args=list(command[1:]))
    assert server is not None
    module, _, name = server.rpartition(".")
    found: Any = getattr(import_module(module), name)
    make: Callable[[], Any] | None = found if callable(found) and not hasattr(found, "call_tool") else None
    return make() if make else found
