"""Check each number of a parsed config against the ``Range`` of its type; the error has the full dotted key."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from mgrpo_lightning.ranges import hints_of, range_in, refuse
from mgrpo_lightning.roles.team_file import arguments_of
from mgrpo_lightning.tools.base import imported


def refuse_numbers(value: Any, hint: Any, name: str) -> None:
    """Refuse numbers outside their range; the error gives the full dotted key.

    Args:
        value: A config or a part of it: nested mappings, lists, numbers.
        hint: Type of the value; None if only the ``class_path`` entries inside it tell the types.
        name: Dotted key of the value; empty for a whole config.

    Raises:
        ConfigurationError: A number is out of its range.
    """
    # A list whose items have a range is checked below as a whole. Items of other lists carry their own class_path.
    if isinstance(value, list | tuple) and range_in(hint) is None:
        for index, one in enumerate(value):
            refuse_numbers(one, None, f"{name}[{index}]")
    elif isinstance(value, Mapping | Namespace):
        block, of = _block(value), hint
        if isinstance(path := block.get("class_path"), str):
            of, block = imported(path), _block(arguments_of(block))
        for key, one in block.items():
            refuse_numbers(one, _hint_of_key(of, key), f"{name}.{key}".removeprefix("."))
    else:
        refuse(value, range_in(hint), name)


def _hint_of_key(hint: Any, key: str) -> Any:
    """Return the type of one key of a block; the block's type is a class, a union, or a mapping of free names."""
    if isinstance(hint, Mapping):
        return hint.get(key)
    if inspect.isclass(hint) and typing.get_origin(hint) is None:
        return hints_of(typing.cast("Any", hint)).get(key)
    if typing.get_origin(hint) is dict:
        return typing.get_args(hint)[1]
    found = (_hint_of_key(part, key) for part in typing.get_args(hint))
    return next((one for one in found if one is not None), None)


def _block(value: Mapping[str, Any] | Namespace) -> Mapping[str, Any]:
    """Return a block as a mapping of its own keys; iterating over a Namespace gives dotted keys of inner blocks."""
    return vars(value) if isinstance(value, Namespace) else value
