"""Check all numbers of a config against the ranges of the classes that it names, by full name, before any is made."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from mgrpo_lightning.ranges import hints_of, range_in, refuse


def refuse_numbers(value: Any, hint: Any, name: str) -> None:
    """Refuse numbers of a config that are out of their ranges, by their full names.

    Args:
        value: A config, or a part of it: mappings, lists, numbers.
        hint: Its type; None where only the ``class_path``s in it say what it is.
        name: Its key with dots, empty for a whole config.

    Raises:
        ConfigurationError: A number is out of its range.
    """
    if isinstance(value, list | tuple) and range_in(hint) is None:
        for index, one in enumerate(value):
            refuse_numbers(one, None, f"{name}[{index}]")
    elif isinstance(value, Mapping | Namespace):
        block, of = _block(value), hint
        if isinstance(path := block.get("class_path"), str):
            of, name, block = _imported(path), f"{name}.init_args", _block(block.get("init_args") or {})
        for key, one in block.items():
            refuse_numbers(one, _hint_of_key(of, key), f"{name}.{key}".removeprefix("."))
    else:
        refuse(value, range_in(hint), name)


def _hint_of_key(hint: Any, key: str) -> Any:
    """The type of a key of a block: a class, one of several, or a mapping of free names."""
    if isinstance(hint, Mapping):
        return hint.get(key)
    if inspect.isclass(hint) and typing.get_origin(hint) is None:
        return hints_of(typing.cast("Any", hint)).get(key)
    if typing.get_origin(hint) is dict:
        return typing.get_args(hint)[1]
    found = (_hint_of_key(part, key) for part in typing.get_args(hint))
    return next((one for one in found if one is not None), None)


def _block(value: Mapping[str, Any] | Namespace) -> Mapping[str, Any]:
    """Its own keys; as a mapping, a Namespace has those of the blocks inside, with dots."""
    return vars(value) if isinstance(value, Namespace) else value


def _imported(path: str) -> Any:
    """The class at a dotted path, which the parser has found before."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
