"""function_tool and load_tool: schema, checks and dotted paths."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mgrpo_lightning.errors import ConfigurationError, ToolBroken, ToolError
from mgrpo_lightning.protocol.arguments import check_arguments
from mgrpo_lightning.tools.base import Tool, function_tool, load_tool


def add(a: int, b: float = 0.5) -> float:
    """Add two numbers.

    The second one is optional.
    """
    return a + b


async def shout(text: str, twice: bool = False) -> str:
    """Say it loudly."""
    await asyncio.sleep(0)
    return text.upper() * (1 + twice)


def call(tool: Tool, **arguments: object) -> str:
    check_arguments(tool.name, tool.parameters, arguments)  # as an agent does before each call
    return asyncio.run(tool(**arguments))


def test_schema_comes_from_name_docstring_and_annotations() -> None:
    tool = function_tool(add)
    assert tool.name == "add"
    assert tool.description == "Add two numbers.\n\nThe second one is optional."
    assert tool.parameters == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "number"}},
        "required": ["a"],
    }


def test_sync_and_async_functions_return_text() -> None:
    assert call(function_tool(add), a=1) == "1.5"
    assert call(function_tool(add), a=1, b=2) == "3"
    assert call(function_tool(shout), text="hi", twice=True) == "HIHI"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "needs the argument 'a'"),
        ({"a": "1"}, "a must be of type integer"),
        ({"a": True}, "a must be of type integer"),
        ({"a": 1.5}, "a must be of type integer"),
        ({"a": None}, "a must be of type integer"),
        ({"a": 1, "b": "x"}, "b must be of type number"),
        ({"a": 1, "c": 2}, "no argument 'c'"),
    ],
)
def test_bad_arguments_are_tool_errors_that_name_them(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ToolError, match=named):
        call(function_tool(add), **arguments)


def test_errors_of_the_function_itself_pass_through() -> None:
    def broken(text: str) -> str:
        raise ToolError(f"cannot read {text!r}.")

    with pytest.raises(ToolError, match="cannot read 'x'"):
        call(function_tool(broken), text="x")


def no_annotation(text) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return str(text)


def a_set(texts: set[str]) -> str:
    return min(texts)


def star(*texts: str) -> str:
    return texts[0]


@pytest.mark.parametrize(("function", "named"), [(no_annotation, "text"), (a_set, "texts"), (star, "texts")])
def test_functions_without_a_schema_are_refused(function: Callable[..., str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        function_tool(function)


def test_load_tool_wraps_a_function_and_keeps_a_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgrpo_lightning.errors.add", add, raising=False)
    loaded = load_tool("mgrpo_lightning.errors.add")
    assert call(loaded, a=2) == "2.5"
    monkeypatch.setattr("mgrpo_lightning.errors.add", loaded)
    assert load_tool("mgrpo_lightning.errors.add") is loaded


@pytest.mark.parametrize(
    "path", ["no.such.module", "mgrpo_lightning.errors.nothing", "search", "", "mgrpo_lightning.errors.ToolError"]
)
def test_load_tool_names_a_path_that_leads_nowhere(path: str) -> None:
    with pytest.raises(ConfigurationError, match=repr(path)):
        load_tool(path)


def divide(a: int, b: int) -> str:
    """Divide."""
    return str(a // b)


def test_what_a_function_raises_becomes_a_tool_error_that_knows_where() -> None:
    with pytest.raises(ToolBroken, match="divide failed: ZeroDivisionError") as error:
        asyncio.run(function_tool(divide)(a=1, b=0))
    assert "return str(a // b)" in error.value.where


def test_what_only_the_user_can_mend_is_not_told_to_the_policy() -> None:
    def unready(text: str) -> str:
        raise ConfigurationError("the key is wrong.", hint="set another.")

    with pytest.raises(ConfigurationError, match="the key is wrong"):
        call(function_tool(unready), text="x")


class Unshown(Exception):
    """Its text fails."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("error", [SystemExit(0), asyncio.CancelledError(), Unshown()])
@pytest.mark.parametrize("kind", ["here", "apart", "async"])
def test_no_end_that_a_function_asks_for_is_that_of_the_run(error: BaseException, kind: str) -> None:
    def leave(text: str) -> str:
        raise error

    async def leave_later(text: str) -> str:
        raise error

    tool = function_tool(leave_later) if kind == "async" else function_tool(leave, apart=kind == "apart")
    with pytest.raises(ToolError, match=r"leave.* failed"):
        call(tool, text="x")


def test_a_play_that_is_ended_ends_its_calls() -> None:
    async def wait(text: str) -> str:
        """Wait."""
        await asyncio.sleep(60)
        return text

    async def ended() -> None:
        running = asyncio.ensure_future(function_tool(wait)(text="x"))
        await asyncio.sleep(0)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ended())


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def tool(:", "SyntaxError"),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("def tool(a: 'Unknown') -> str: ...", "annotations of tool 'tool' cannot be read.*Unknown"),
        ("def tool(a: str) -> str:\n    yield a", "is a generator, not a function that returns text"),
    ],
)
def test_a_module_that_cannot_be_used_is_named(
    tmp_path: Path, source: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_broken_tool.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_broken_tool", raising=False)
    with pytest.raises(ConfigurationError, match=f"{problem}.*HINT"):
        load_tool("own_broken_tool.tool")


@pytest.mark.parametrize("apart", [False, True])
def test_the_end_of_an_iterator_is_an_error_like_others(apart: bool) -> None:
    def first(text: str) -> str:
        return next(word for word in text.split() if word == "there")

    with pytest.raises(ToolError, match=r"first failed: .*StopIteration"):
        call(function_tool(first, apart=apart), text="not here")


def test_play_goes_on_while_a_function_waits_and_its_calls_keep_their_order() -> None:
    go, done = threading.Event(), list[int]()

    def wait(number: int) -> str:
        assert go.wait(20), "play stood still"
        done.append(number)
        return str(threading.get_ident())

    tool = function_tool(wait, apart=True)

    async def play() -> list[str]:
        go.clear()
        calls = [asyncio.ensure_future(tool(number=number)) for number in range(20)]
        await asyncio.sleep(0.01)
        go.set()
        return await asyncio.gather(*calls)

    for _ in range(2):  # steps, each in a loop of its own
        assert str(threading.get_ident()) not in asyncio.run(play())
    assert done == [*range(20), *range(20)]


def whereabouts(text: str) -> int:
    return threading.get_ident()


async def whereabouts_of_the_loop(text: str) -> int:
    return threading.get_ident()


@pytest.mark.parametrize(
    ("module", "function", "apart"),
    [
        (__name__, whereabouts, True),
        (__name__, whereabouts_of_the_loop, False),
        ("mgrpo_lightning.errors", whereabouts, False),
    ],
)
def test_a_user_s_function_runs_apart_and_the_package_s_own_do_not(
    module: str, function: Callable[..., object], apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{module}.placed", function, raising=False)
    assert (call(load_tool(f"{module}.placed"), text="x") != str(threading.get_ident())) == apart
