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


def check_arguments(name: str, schema: Mapping[str, object], arguments: Mapping[str, object]) -> None:
    """Refuse arguments that do not fit the schema.

    Raises:
        ToolError: An argument is unknown, missing or of another type; the message is written for the policy.
    """
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    assert isinstance(properties, Mapping), f"schema of {name} has no properties"
    assert isinstance(required, list | tuple), f"schema of {name}: required is no list"
    for argument, value in arguments.items():
        if argument not in properties:
            raise ToolError(f"{name} has no argument {argument!r}.", hint=f"its arguments are {sorted(properties)}.")
        declared = properties[argument].get("type")
        kinds = [declared] if isinstance(declared, str) else list(declared or [])
        if kinds and not any(_is(value, kind) for kind in kinds):
            raise ToolError(f"{name}: {argument} must be of type {' or '.join(kinds)}, not {value!r}.")
    for argument in required:
        if argument not in arguments:
            raise ToolError(f"{name} needs the argument {argument!r}.")


def _is(value: object, kind: str) -> bool:
    # In Python True is an int; in JSON it is no number.
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
