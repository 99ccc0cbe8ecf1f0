"""Check that the JSON schema which an MCP server declares for a tool is valid and names only known types."""

from __future__ import annotations

import json
from typing import Any

from mgrpo_lightning.errors import ConfigurationError

KINDS = ("string", "integer", "number", "boolean", "array", "object", "null")
"""The type names of JSON Schema."""


def declared(name: str, schema: Any) -> dict[str, object]:
    """Return the schema unchanged if ``check_arguments`` can read names, types and required arguments from it.

    Every valid JSON Schema of an object is accepted. Here only names and types are checked in calls; the server checks
    everything else, such as ``anyOf``.

    Args:
        name: Name of the tool, for the error message.
        schema: Schema of the arguments as the server declares it.

    Raises:
        ConfigurationError: It is not a JSON Schema of an object; the message names the tool and the property.
    """
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    try:
        # The schema goes into the system prompt, so it must be encodable JSON without NaN.
        json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
    except SchemaError as error:
        path = list(error.absolute_path)
        where = f"property {path[1]!r}" if path[:1] == ["properties"] and len(path) > 1 else "its arguments"
        raise _refused(name, where, error.message) from error
    except Exception as error:  # not JSON, nested too deeply, or of an unknown draft
        raise _refused(name, "its arguments", f"{type(error).__name__}: {error}") from error
    # Older drafts of JSON Schema allow other forms in the fields that `check_arguments` reads.
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise _refused(name, "its arguments", "they are not an object")
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict):
        raise _refused(name, "its arguments", f"their properties are {properties!r}")
    for argument, described in properties.items():
        if not isinstance(described, dict | bool):
            raise _refused(name, f"property {argument!r}", f"{described!r} is not a schema")
        kinds = described.get("type", []) if isinstance(described, dict) else []
        for one in kinds if isinstance(kinds, list) else [kinds]:
            if not isinstance(one, str) or one not in KINDS:
                raise _refused(name, f"property {argument!r}", f"{one!r} is not a JSON type")
    if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
        raise _refused(name, "its arguments", f"the required ones are {required!r}")
    return schema


def _refused(name: str, where: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the tool {name!r} of an MCP server declares {where} with an invalid JSON Schema: {why[:300]}.",
        hint="correct the server, or list only the other tools under `only`.",
    )
