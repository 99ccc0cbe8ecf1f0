"""Check a call's arguments against a tool's JSON schema, before the tool sees them.

Only what function signatures need: names, required ones, and the JSON types of the top level.
"""

from __future__ import annotations

from collections.abc import Mapping

from mgrpo_lightning.errors import ToolError

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
"""What Python makes of the types of JSON."""
_OTHERS = (
    *("additionalProperties", "unevaluatedProperties", "patternProperties", "dependentSchemas"),
    *("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if"),
)
"""Keywords by which a schema may take arguments that its ``properties`` do not name."""


def check_arguments(name: str, schema: Mapping[str, object], arguments: Mapping[str, object]) -> None:
    """Refuse arguments that do not fit the schema.

    Args:
        name: Of the tool.
        schema: Of an object, whose properties are schemas with types that JSON has; a server's is read by ``declared``.
        arguments: What a policy wrote.

    Raises:
        ToolError: An argument is unknown, missing or of another type; the message is written for the policy.
    """
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    assert isinstance(properties, Mapping), f"schema of {name} has no properties"
    assert isinstance(required, list | tuple), f"schema of {name}: required is no list"
    named_alone = not any(schema.get(keyword) for keyword in _OTHERS)
    for argument, value in arguments.items():
        described = properties.get(argument, not named_alone)
        if described is False:
            raise ToolError(f"{name} has no argument {argument!r}.", hint=f"its arguments are {sorted(properties)}.")
        declared = [] if described is True else described.get("type", [])
        kinds = [declared] if isinstance(declared, str) else list(declared)
        if kinds and not any(_is(value, kind) for kind in kinds):
            raise ToolError(f"{name}: {argument} must be of type {' or '.join(kinds)}, not {value!r}.")
    for argument in required:
        if argument not in arguments:
            raise ToolError(f"{name} needs the argument {argument!r}.")


def _is(value: object, kind: str) -> bool:
    # In Python True is an int; in JSON it is no number.
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
