"""Tools of MCP servers: in this process and as a subprocess, called from any loop; and what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.tools.base import Tool
from mgrpo_lightning.tools.mcp import McpTools
from tests.agents.fakes import FakeChat, answer, call, duo, question
from tests.agents.test_rounds import FakeEngine

pytest.importorskip("mcp")

from tests.tools.mcp_server import server

SERVERS: dict[str, dict[str, Any]] = {
    "object": {"server": "tests.tools.mcp_server.server"},
    "function": {"server": "tests.tools.mcp_server.made"},
    "subprocess": {"command": [sys.executable, "-m", "tests.tools.mcp_server"]},
}


@contextlib.contextmanager
def tools(where: str = "object", **settings: Any) -> Iterator[dict[str, Tool]]:
    with contextlib.closing(McpTools(**SERVERS[where], **settings)) as opened:
        yield {tool.name: tool for tool in opened.tools()}


@pytest.mark.parametrize("where", list(SERVERS))
def test_a_server_s_tools_are_described_and_called(where: str) -> None:
    with tools(where) as found:
        assert set(found) == {"search", "divide", "sleep"}
        search = found["search"]
        assert search.description == "Find pages by keywords."
        assert search.parameters["required"] == ["query"]
        for _ in range(2):  # each in a loop of its own, as plays are
            assert asyncio.run(search(query="France", limit=1)) == "1. page 1 about France"
        assert asyncio.run(found["divide"](numerator=1.0, denominator=4.0)) == "0.25"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("divide", {"numerator": 1.0, "denominator": 0.0}), ("search", {}), ("search", {"query": "x", "limit": "many"})],
)
def test_a_call_that_fails_is_told_to_the_policy(name: str, arguments: dict[str, object]) -> None:
    with tools() as found, pytest.raises(ToolError, match=f"{name} failed"):
        asyncio.run(found[name](**arguments))


def test_calls_run_at_the_same_time_and_are_cut_off() -> None:
    with tools(timeout=2.0) as found:
        sleep = found["sleep"]

        async def several() -> list[str]:
            return await asyncio.gather(*(sleep(seconds=0.3) for _ in range(8)))

        assert asyncio.run(several()) == ["awake"] * 8, "one after the other, the last would be cut off"
        with pytest.raises(ToolError, match="sleep failed"):
            asyncio.run(sleep(seconds=30.0))


def test_some_of_the_tools_can_be_taken() -> None:
    with tools(only=["sleep"]) as found:
        assert list(found) == ["sleep"]
    with pytest.raises(ConfigurationError, match=r"no tool 'fly'.*'divide'"):
        McpTools(**SERVERS["object"], only=["fly"])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "defined by nothing"),
        ({"url": "http://localhost:1/mcp", "server": "tests.tools.mcp_server.server"}, r"\['server', 'url'\]"),
        ({"url": "http://127.0.0.1:1/mcp"}, "does not answer"),
        ({"command": ["no-such-program"]}, "does not answer"),
        ({"server": "tests.tools.mcp_server.absent"}, "does not answer"),
        ({"server": "tests.tools.absent.server"}, "cannot be imported"),
    ],
)
def test_a_server_that_is_not_there_is_told_at_once(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        McpTools(**settings, timeout=5.0)


def test_a_searcher_uses_them_in_a_rollout() -> None:
    def main(task: str, results: int) -> str:
        return call("searcher", task="France") if results == 0 else answer("done")

    def searcher(task: str, results: int) -> str:
        return call("search", query=task, limit=2) if results == 0 else answer("report")

    scheduler = Scheduler("rounds")
    engines = {"main": FakeEngine("main", scheduler, main), "searcher": FakeEngine("searcher", scheduler, searcher)}
    with tools(only=["search"]) as found:
        chats, samplers = cast("Any", {role: FakeChat() for role in engines}), cast("Any", engines)
        team = Players(duo(), chats, samplers, found, scheduler=scheduler, seed=0)
        (group,) = team.play(PlayRequest([question()], step=0, rollouts=2)).groups
    for rollout in group.rollouts:
        (sub,) = rollout.subs
        assert [(one.name, one.result, one.failed) for one in sub.calls] == [
            ("search", "1. page 1 about France\n2. page 2 about France", False)
        ]
        assert rollout.main.answer == "done"


def test_what_a_server_declares_is_read_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    described = server._tool_manager.get_tool("search")
    assert described is not None
    monkeypatch.setattr(described, "parameters", {"type": "object", "properties": {"query": {"type": "any"}}})
    with pytest.raises(ConfigurationError, match=r"tool 'search' .* property 'query' .*'any'"):
        McpTools(**SERVERS["object"])
    with tools(only=["sleep"]) as found:  # what is not taken may be as it likes
        assert list(found) == ["sleep"]
    monkeypatch.setattr(described, "parameters", {"type": "object", "additionalProperties": True})
    with tools(only=["search"]) as found, pytest.raises(ToolError, match="search failed"):
        asyncio.run(found["search"](**{"self": 1, "name": 2, "arguments": 3}))


def test_a_server_that_dies_is_connected_to_again_told_once_and_ends_the_run_when_it_does_not_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (alive := tmp_path / "alive").touch()
    command = [sys.executable, "-m", "tests.tools.dying_mcp_server", str(alive)]
    with contextlib.closing(McpTools(command=command)) as opened:
        found = {tool.name: tool for tool in opened.tools()}

        async def all_at_once() -> list[Any]:
            calls = [found["die"](), found["live"](), found["live"]()]
            return await asyncio.gather(*calls, return_exceptions=True)

        for _ in range(2):
            results = asyncio.run(all_at_once())
            assert isinstance(results[0], ToolError)
            assert all(result == "alive" or isinstance(result, ToolError) for result in results[1:])
            assert asyncio.run(found["live"]()) == "alive"
        assert caplog.text.count("and was reconnected") == 1
        alive.unlink()
        with pytest.raises(ConfigurationError, match=r"died and cannot be reconnected: MCPError.*HINT"):
            asyncio.run(found["die"]())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"url": "http://user:secret@127.0.0.1:9/mcp?key=secret"}, r"'http://127.0.0.1:9/mcp' .*: ConnectError: "),
        ({"command": [sys.executable, "-c", "", "secret"]}, "MCPError: Connection closed"),
        ({"command": [sys.executable, "-c", "import time; time.sleep(9)", "secret"]}, "no answer within 2 s"),
    ],
)
def test_the_reason_of_a_start_that_fails_is_told_without_secrets(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as error:
        McpTools(**settings, timeout=2.0)
    assert "TaskGroup" not in str(error.value)
    assert "secret" not in str(error.value)
