"""Check a call's arguments against the tool's JSON schema: unknown names, missing ones, wrong JSON types.

The check covers what function signatures need: argument names, required arguments, and JSON types at the top level. No
tool repeats it. A function tool also fits each value to its annotation (``tools/parameters.py``), parts included.
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
"""The Python types of each JSON type after ``json.loads``."""
_OTHERS = (
    *("additionalProperties", "unevaluatedProperties", "patternProperties", "dependentSchemas"),
    *("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if"),
)
"""Schema keywords that may allow arguments outside of ``properties``. If one is present, unknown names are accepted."""


def check_arguments(name: str, schema: Mapping[str, object], arguments: Mapping[str, object]) -> None:
    """Refuse arguments that do not match the schema.

    Args:
        name: Name of the tool, for error messages.
        schema: JSON schema of type object. Every property has a valid schema; ``declared`` checks this for MCP servers.
        arguments: The parsed arguments that the policy wrote.

    Raises:
        ToolError: An argument is unknown, missing or of the wrong type; the message is written for the policy.
    """
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    assert isinstance(properties, Mapping), f"schema of {name} has no properties"
    assert isinstance(required, list | tuple), f"schema of {name}: required is no list"
    named_alone = not any(schema.get(keyword) for keyword in _OTHERS)
    for argument, value in arguments.items():
        # JSON Schema allows a bool as a schema: True accepts every value, False refuses every value.
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
    # In Python, True is an int; in JSON, true is not a number.
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
