"""Parameters of tools: a JSON schema of every kind of annotation, values that fit it, and names for what does not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, Optional, TypedDict, Union

import pytest

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.protocol.arguments import check_arguments
from mgrpo_lightning.tools.base import function_tool


class Span(TypedDict):
    start: int
    end: NotRequired[int]


class Filter(TypedDict):
    words: list[str]
    years: Optional[Span]  # noqa: UP045


class Tree(TypedDict):
    children: list[Tree]


SPAN = {
    "type": "object",
    "properties": {"start": {"type": "integer"}, "end": {"type": "integer"}},
    "required": ["start"],
    "additionalProperties": False,
}
NULL = {"type": "null"}
KINDS: list[tuple[Any, dict[str, Any], list[object], list[tuple[object, str]]]] = [
    (str, {"type": "string"}, ["", "a"], [(1, "a string"), (None, "a string")]),
    (int, {"type": "integer"}, [0, -3], [(True, "an integer"), (1.0, "an integer"), ("1", "an integer")]),
    (float, {"type": "number"}, [0, 1.5], [(True, "a number"), ("1", "a number")]),
    (bool, {"type": "boolean"}, [True, False], [(1, "a boolean")]),
    (list[str], {"type": "array", "items": {"type": "string"}}, [[], ["a", "b"]], [("a", "a list"), ([1], "a string")]),
    (Sequence[int], {"type": "array", "items": {"type": "integer"}}, [[1]], [([1, "x"], "an integer")]),
    (list[list[int]], {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, [[[1], []]], []),
    (Optional[int], {"anyOf": [{"type": "integer"}, NULL]}, [None, 3], [("3", "an integer or null")]),  # noqa: UP045
    (int | None, {"anyOf": [{"type": "integer"}, NULL]}, [None, 3], [(False, "an integer or null")]),
    (
        Union[str, list[str]],  # noqa: UP007
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        ["a", ["a"]],
        [(3, "a string or a list")],
    ),
    (Literal["asc", "desc"], {"enum": ["asc", "desc"]}, ["asc"], [("up", "one of"), (None, "one of")]),
    (Literal[1, 2, None], {"enum": [1, 2, None]}, [2, None], [(True, "one of"), (1.0, "one of"), (3, "one of")]),
    (
        dict[str, float],
        {"type": "object", "additionalProperties": {"type": "number"}},
        [{}, {"a": 1}],
        [({"a": "x"}, "a number"), ([], "an object")],
    ),
    (
        Mapping[str, bool],
        {"type": "object", "additionalProperties": {"type": "boolean"}},
        [{"a": True}],
        [(3, "object")],
    ),
    (
        Span,
        SPAN,
        [{"start": 1}, {"start": 1, "end": 2}],
        [
            ({}, "start, maybe end"),
            ({"start": 1, "x": 2}, "start"),
            ({"start": "1"}, "an integer"),
            (None, "an object"),
        ],
    ),
    (
        Filter,
        {
            "type": "object",
            "properties": {"words": {"type": "array", "items": {"type": "string"}}, "years": {"anyOf": [SPAN, NULL]}},
            "required": ["words", "years"],
            "additionalProperties": False,
        },
        [{"words": ["a"], "years": None}, {"words": [], "years": {"start": 3}}],
        [({"words": [1], "years": None}, "a string"), ({"words": []}, "words, years")],
    ),
]


def make(hint: Any) -> Any:
    def tool(value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        seen.append(value)
        return "seen"

    seen: list[object] = []
    tool.__annotations__ = {"value": hint, "return": str}
    tool.seen = seen  # type: ignore[attr-defined]
    return tool


@pytest.mark.parametrize(("hint", "schema", "good", "bad"), KINDS, ids=[str(kind[0]) for kind in KINDS])
def test_every_kind_has_a_schema_reads_what_fits_and_names_what_does_not(
    hint: Any, schema: dict[str, Any], good: list[object], bad: list[tuple[object, str]]
) -> None:
    function = make(hint)
    tool = function_tool(function)
    assert tool.parameters == {"type": "object", "properties": {"value": schema}, "required": ["value"]}
    for value in good:
        check_arguments(tool.name, tool.parameters, {"value": value})
        assert asyncio.run(tool(value=value)) == "seen"
        assert function.seen[-1] == value
    for value, wanted in bad:
        with pytest.raises(ToolError, match=f"argument 'value.* of tool is .*HINT: it must be .*{wanted}"):
            asyncio.run(tool(value=value))
    assert len(function.seen) == len(good)


def test_tuples_are_made_of_lists_and_a_place_deep_inside_is_named() -> None:
    function = make(dict[str, tuple[Span, ...]])
    tool = function_tool(function)
    asyncio.run(tool(value={"a": [{"start": 1}]}))
    assert function.seen == [{"a": ({"start": 1},)}]
    with pytest.raises(ToolError, match=r"argument 'value\.a\[1\]\.end' of tool is '2'"):
        asyncio.run(tool(value={"a": [{"start": 1}, {"start": 1, "end": "2"}]}))


NONE_OF_THEM: list[Any] = [list, dict, Any, object, bytes, set[str], tuple[int, str], dict[int, str], complex, Tree]
NONE_OF_THEM += [list[bytes], Optional[bytes], dict[str, list[set[int]]], Literal[b"x"]]  # noqa: UP045


@pytest.mark.parametrize("hint", NONE_OF_THEM, ids=str)
def test_any_other_annotation_is_refused_by_name(hint: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"parameter 'value' of tool 'tool' has the annotation .*HINT: annotate"
    ):
        function_tool(make(hint))
