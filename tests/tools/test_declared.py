"""Schemas of MCP servers: accepted, or refused by name; and nothing a policy writes is more than a tool error."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.protocol.arguments import check_arguments

pytest.importorskip("jsonschema")

from mgrpo_lightning.tools.declared import declared

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KINDS = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])
NAMES = st.sampled_from(["a", "b", "self", "name", "arguments", ""])
KEYWORDS = ["$ref", "$schema", "additionalProperties", "allOf", "anyOf", "const", "enum", "items", "pattern", "$defs"]


def schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Near what servers declare, with anything in places where it does not belong."""
    fitting = {
        "type": KINDS | st.lists(KINDS, min_size=1, max_size=3, unique=True),
        "properties": st.dictionaries(NAMES, inner | st.booleans(), max_size=3),
        "required": st.lists(NAMES, max_size=3, unique=True),
        "anyOf": st.lists(inner, min_size=1, max_size=2),
        "additionalProperties": st.booleans() | inner,
        "description": st.text(max_size=4),
        "minimum": st.integers(-3, 3),
    }
    strange = dict.fromkeys([*fitting, *KEYWORDS], JSON)
    good = st.fixed_dictionaries({}, optional=fitting)
    return good | st.builds(lambda a, b: {**a, **b}, good, st.fixed_dictionaries({}, optional=strange))


SCHEMAS = st.recursive(st.just({}) | st.fixed_dictionaries({"type": KINDS}), schemas, max_leaves=4)
PLAIN = st.fixed_dictionaries({}, optional={"type": KINDS, "description": st.text(max_size=4)})
ARGUMENTS = st.dictionaries(NAMES | st.text(max_size=3), JSON, max_size=4)


@given(SCHEMAS | JSON, ARGUMENTS)
@settings(max_examples=200)
def test_a_schema_is_refused_by_name_or_whatever_a_policy_writes_is_at_most_an_error(
    schema: Any, arguments: dict[str, object]
) -> None:
    try:
        accepted = declared("dig", schema)
    except ConfigurationError:
        with pytest.raises(ConfigurationError, match=r"(?s)'dig'.*HINT"):
            declared("dig", schema)
        return
    with contextlib.suppress(ToolError):
        check_arguments("dig", accepted, arguments)


@given(st.dictionaries(NAMES, PLAIN, max_size=3), ARGUMENTS)
def test_plain_schemas_are_accepted_and_types_are_checked(
    properties: dict[str, Any], arguments: dict[str, object]
) -> None:
    accepted = declared("dig", {"type": "object", "properties": properties})
    fitting = all(
        name in properties and (properties[name].get("type") != "string" or isinstance(value, str))
        for name, value in arguments.items()
    )
    if not fitting:
        with pytest.raises(ToolError):
            check_arguments("dig", accepted, arguments)


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"type": "object", "properties": {"depth": {"type": "any"}}}, "property 'depth'"),
        ({"type": "object", "properties": {"depth": {"type": ["string", "any"]}}}, "property 'depth'"),
        ({"type": "object", "properties": {"depth": None}}, "property 'depth'"),
        ({"type": "object", "properties": {"depth": {"minimum": "low"}}}, "property 'depth'"),
        ({"type": "object", "properties": None}, "its arguments"),
        ({"type": "object", "properties": []}, "its arguments"),
        ({"type": "object", "required": True}, "its arguments"),
        ({"type": "object", "required": [1]}, "its arguments"),
        ({"type": "string"}, "its arguments"),
        ({"$schema": 5}, "its arguments"),
        ({"$schema": "http://json-schema.org/draft-03/schema#", "properties": {"depth": {"type": "any"}}}, "'depth'"),
        ({"$schema": "http://json-schema.org/draft-03/schema#", "required": True}, "its arguments"),
        ({"description": "\ud800"}, "its arguments"),
        (True, "its arguments"),
        (None, "its arguments"),
    ],
)
def test_what_json_schema_does_not_have_is_refused_at_start(schema: Any, where: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"tool 'dig' .*{where}.*HINT: correct the server"):
        declared("dig", schema)


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"properties": {"a": schema}}
    with pytest.raises(ConfigurationError, match="RecursionError"):
        declared("dig", schema)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"properties": {"a": True}}, {"a": 5}, {"b": 5}),
        ({"properties": {"a": False}}, {}, {"a": 5}),
        ({"properties": {"a": {"type": ["string", "null"]}}}, {"a": None}, {"a": 5}),
        ({"properties": {"a": {"anyOf": [{"type": "string"}]}}}, {"a": 5}, {"b": 5}),
        ({"properties": {"a": {"type": "string"}}, "additionalProperties": True}, {"b": 5}, {"a": 5}),
        ({"properties": {"a": {"type": "string"}}, "additionalProperties": False}, {"a": ""}, {"b": 5}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "object"}}}, {"self": 5}, None),
        ({"required": ["a"]}, None, {}),
    ],
)
def test_the_unusual_is_accepted(schema: Any, good: dict[str, object] | None, bad: dict[str, object] | None) -> None:
    accepted = declared("dig", schema)
    if good is not None:
        check_arguments("dig", accepted, good)
    if bad is not None:
        with pytest.raises(ToolError):
            check_arguments("dig", accepted, bad)
