"""The reasoning tool on a loopback server: what it is asked, and what a failure is to the policy."""

from __future__ import annotations

import asyncio

import pytest

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.services.endpoint import EndpointConfig
from mgrpo_lightning.tools.reason import Reason
from tests.support.chat_server import Server, failed, said


def ask(server: Server, problem: str) -> str:
    (tool,) = Reason(EndpointConfig(server.url, "thinker", attempts=2, backoff=0.0)).tools()
    return asyncio.run(tool(problem=problem))


def test_the_problem_is_asked_and_the_conclusion_comes_back() -> None:
    server = Server()
    server.replies = [said(" 7, because 3 + 4. ")]
    assert ask(server, "What is 3 + 4?") == "7, because 3 + 4."
    (request,) = server.seen
    assert (request["model"], request["temperature"]) == ("thinker", 0)
    assert request["messages"][0]["content"].endswith("What is 3 + 4?")


@pytest.mark.parametrize("reply", [failed(500), said("  "), (200, "not JSON", {})])
def test_a_model_that_says_nothing_is_a_failed_call(reply: tuple[int, str, dict[str, str]]) -> None:
    server = Server()
    server.replies = [reply]
    with pytest.raises(ToolError, match="gave no answer"):
        ask(server, "x")
    assert len(server.seen) == 2
