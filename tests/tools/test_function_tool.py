"""function_tool and load_tool: schema, checks and dotted paths."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mgrpo_lightning.errors import ConfigurationError, ToolError
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
        ({}, "lacks the argument 'a'"),
        ({"a": "1"}, "argument 'a'"),
        ({"a": True}, "argument 'a'"),
        ({"a": 1.5}, "argument 'a'"),
        ({"a": None}, "argument 'a'"),
        ({"a": 1, "b": "x"}, "argument 'b'"),
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


def a_list(texts: list[str]) -> str:
    return texts[0]


def star(*texts: str) -> str:
    return texts[0]


@pytest.mark.parametrize(("function", "named"), [(no_annotation, "text"), (a_list, "texts"), (star, "texts")])
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


def test_what_a_function_raises_becomes_a_tool_error_with_a_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ToolError, match="divide failed: ZeroDivisionError"):
        asyncio.run(function_tool(divide)(a=1, b=0))
    assert "tool divide failed on {'a': 1, 'b': 0}" in caplog.text
