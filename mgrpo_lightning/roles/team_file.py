"""Convert a team file between the flat shape and ``init_args``; classes of ``model`` and ``data``; blocks of roles.

Inside the package a team file is flat: ``model`` and ``data`` have their keys directly, and so has every block with a
``class_path``. jsonargparse wants ``init_args`` where a block has a ``class_path``; ``nested`` puts it there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.names import CLASS_KEYS

CLASSES: Mapping[str, str] = {"model": "TeamModule", "data": "AlignedTrajectoryDataModule"}
"""Blocks of a team file that always have the same class, and its name; the block may name the class or not."""
ARGUMENTS = "init_args"
"""Key of a block with the arguments of its class."""
DEFAULTS = "defaults"
"""Key of ``model``: the block with what every role has."""
_IN_KEY = re.compile(rf"\.{ARGUMENTS}(?=\.|$)")


def flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a team file in the flat shape, without the classes of ``CLASSES``.

    Args:
        content: A team file in any shape; not modified.

    Raises:
        ConfigurationError: ``model`` or ``data`` names another class, or has ``init_args`` that are no mapping.
    """
    found: dict[str, Any] = _lifted(dict(content))
    for name in CLASSES:
        if not isinstance(block := found.get(name), dict):
            continue
        if ARGUMENTS in block:
            raise ConfigurationError(
                f"{name}.{ARGUMENTS} is {block[ARGUMENTS]!r}, not a mapping.",
                hint=f"leave {ARGUMENTS} out, and write the keys directly under {name}.",
            )
        if "class_path" in block:
            check_class(name, block["class_path"])
            found[name] = {key: value for key, value in block.items() if key != "class_path"}
    return found


def check_class(name: str, path: object) -> None:
    """Reject another class than the one that a block always has.

    Args:
        name: Block of the team file, a key of ``CLASSES``.
        path: Class name or dotted path.

    Raises:
        ConfigurationError: It is another class.
    """
    if not isinstance(path, str) or path.rpartition(".")[2] != CLASSES[name]:
        raise ConfigurationError(
            f"{name}.class_path is {path!r}, but a team's {name} is always {CLASSES[name]}.",
            hint=f"leave class_path out, and write the keys directly under {name}.",
        )


def flat_key(key: str) -> str:
    """Return a dotted key as it is in the flat shape: without ``init_args``."""
    return _IN_KEY.sub("", key)


def roles_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the blocks of the roles of a flat team file; empty if it has none."""
    model = content.get("model")
    roles = model.get("roles") if isinstance(model, dict) else None
    return roles if isinstance(roles, dict) else {}


def arguments_of(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of a block with a ``class_path``, as jsonargparse has parsed it."""
    return block.get(ARGUMENTS) or {}


def _lifted(value: Any) -> Any:
    if isinstance(value, list):
        return [_lifted(one) for one in value]
    if not isinstance(value, dict):
        return value
    if ARGUMENTS in value and isinstance(inner := value[ARGUMENTS] or {}, dict):
        value = {**{key: one for key, one in value.items() if key != ARGUMENTS}, **inner}
    return {key: _lifted(one) for key, one in value.items()}


def nested(value: Any) -> Any:
    """Return a flat team file, or a value in it, with ``init_args`` in every block that has a ``class_path``."""
    if isinstance(value, list):
        return [nested(one) for one in value]
    if not isinstance(value, dict):
        return value
    inner = {key: nested(one) for key, one in value.items() if key not in CLASS_KEYS}
    if "class_path" not in value:
        return {**value, **inner}
    outer = {key: one for key, one in value.items() if key in CLASS_KEYS}
    return {**outer, ARGUMENTS: inner} if inner else outer
