"""Resolve references such as ``${run.name}`` in a team file (OmegaConf); escape or refuse every other ``${``.

A reference is the full dotted key from the top of the team file; ``init_args`` may be left out. Values of the keys in
``TEXTS`` are prompts for a model and contain no references. OmegaConf's other syntax, such as resolvers that read the
environment, is not supported; it is escaped or refused before OmegaConf sees it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.roles.team_file import flat_key

TEXTS = ("system_prompt", "description", "question")
"""Keys whose values are prompts for a model; ``${...}`` in them stays as written."""
BLOCKS = ("run", "model", "data", "trainer", "checkpoint", "export", "rollout_log", "alarm", "distributions", "results")
"""Top-level keys that a reference may start with. ``${100}`` and ``${HOME}`` are therefore plain text."""
_NAME = rf"(?:{'|'.join(BLOCKS)})(?:\.[\w-]+)+"
_REFERENCE = re.compile(rf"\$\{{{_NAME}\}}")
_OPENING = re.compile(rf"(\\*)\$\{{(?:({_NAME})\}})?")
_RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")
_ASKED = "_asked"
"""Temporary key of the tree: values are stored here, and OmegaConf resolves them on reading."""
_MISSING = "???"
"""OmegaConf's mark for a value that is still to come."""


def escaped(value: Any, key: str = "") -> Any:
    """Prepare a value for OmegaConf: references stay, without ``init_args``, and any other ``${`` is escaped.

    Args:
        value: A value of a team file: nested dicts and lists of scalars; not modified.
        key: The last key on the way to the value.

    Raises:
        ConfigurationError: A value is ``???``, or an OmegaConf resolver such as ``${oc.env:HOME}``.
    """
    if isinstance(value, dict):
        return {name: escaped(one, str(name)) for name, one in value.items()}
    if isinstance(value, list):
        return [escaped(one, key) for one in value]
    if value == _MISSING and key not in TEXTS:
        raise ConfigurationError(f"{key} is {value!r}, which marks a missing value.", hint="write the value.")
    if not isinstance(value, str) or "${" not in value:
        return value
    if key not in TEXTS and _RESOLVER.search(value):
        raise ConfigurationError(
            f"{key} is {value!r}, which takes its value from outside of the team file.",
            hint="write the value; for the key of a service, name its environment variable in key_variable.",
        )

    def replaced(found: re.Match[str]) -> str:
        slashes = found[1] * 2  # before ${, OmegaConf reads two backslashes as one
        if found[2] is None:
            return rf"{slashes}\${{"
        return f"{slashes}${{{flat_key(found[2])}}}" if key not in TEXTS else rf"{slashes}\${{{found[2]}}}"

    return _OPENING.sub(replaced, value)


def has_reference(text: str) -> bool:
    """Whether a text contains a reference, if it is not a value of ``TEXTS``."""
    return _REFERENCE.search(text) is not None


def resolved(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Replace references by the values that they name, and undo ``escaped``.

    Args:
        values: Escaped values by key.
        known: The escaped team file that references name, in the flat shape.

    Raises:
        ConfigurationError: A reference names a missing key, or itself.
    """
    tree = OmegaConf.create({**known, _ASKED: values})
    try:
        found = OmegaConf.to_container(tree[_ASKED], resolve=True)
    except OmegaConfBaseException as error:
        key = (error.full_key or "").removeprefix(f"{_ASKED}.")
        text = None if error.child_node is None else error.child_node._value()
        raise ConfigurationError(
            f"{key} is {text!r}: {str(error).splitlines()[0]}.", hint="refer to an existing key, or write the value."
        ) from error
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
