"""Check the shape of a team file before jsonargparse reads it: a block, a list or one value stands where it belongs.

jsonargparse takes a number, a list or null for a block that has a default, and null for every key that has one. The
mistake would show much later, as an error of a class.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from mgrpo_lightning.commands.yaml_text import dumped
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.ranges import hints_of
from mgrpo_lightning.roles.team_file import DEFAULTS

_SCALARS = {str: "text", int: "an integer", float: "a number", bool: "true or false"}
_BLOCK = "a block of keys"
_NO_KEYS = ("args", "kwargs", "return")
"""Entries of a constructor's type hints that are no keys."""
_LONGEST = 60
"""Maximum length of a displayed value, in characters."""


def refuse_shapes(content: Mapping[str, Any], blocks: Mapping[str, Any]) -> None:
    """Refuse values of another kind than their key has, and blocks that lack a key.

    Unknown keys and wrong scalars are left to the parser, which names them.

    Args:
        content: A flat team file with the options on top.
        blocks: Class of each block at the top; others are not checked.

    Raises:
        ConfigurationError: The first mistake, with its full key and what was meant.
    """
    for name, value in content.items():
        if name in blocks:
            _refuse_block(value, blocks[name], name)


def _refuse_block(value: Any, of: Any, name: str) -> None:
    hints = hints_of(of)
    if value is None:
        raise ConfigurationError(f"{name} is empty.", hint=f"write keys below it, or leave {name} out.")
    if isinstance(value, str) and Path(value).is_file():
        return  # jsonargparse reads the block from that file
    if not isinstance(value, Mapping):
        raise _wrong(name, value, _BLOCK, _meant_block(name, value, hints))
    for key, one in value.items():
        if key in hints:
            _refuse(one, hints[key], f"{name}.{key}")
    missing = [key for key in _required(of) if key not in value]
    if missing and value.keys() <= hints.keys():  # else the key may be mistyped, and the parser names the unknown one
        names = " and ".join(missing)
        role = name.count(".") == 2 and name.startswith("model.roles.")
        instead = f", or for all roles in model.{DEFAULTS}" if role else ", or leave the block out"
        raise ConfigurationError(f"{name} lacks {names}.", hint=f"give {names}{instead}.")


def _refuse(value: Any, hint: Any, name: str) -> None:
    kinds = _kinds(hint)
    if not all(kind is type(None) or _what([kind]) for kind in kinds):
        return  # a type that this module does not know, such as Any
    if value is None:
        if type(None) not in kinds:
            raise ConfigurationError(
                f"{name} is null; it must be {_what(kinds)}.", hint="give a value, or leave it out."
            )
        return
    if isinstance(value, Mapping):
        fitting = [kind for kind in kinds if _is_block(kind) or _is_class(kind)]
    elif isinstance(value, list):
        fitting = [kind for kind in kinds if _items(kind) is not None]
    else:
        fitting = [kind for kind in kinds if kind in _SCALARS or typing.get_origin(kind) is Literal]
        fitting += [kind for kind in kinds if isinstance(value, str) and (_is_class(kind) or _is_block(kind, False))]
    if not fitting:
        raise _wrong(name, value, _what(kinds), _meant(name, value, kinds))
    _refuse_inside(value, fitting[0], name)


def _refuse_inside(value: Any, kind: Any, name: str) -> None:
    """Check the keys of a block, or the items of a list."""
    if dataclasses.is_dataclass(kind):
        _refuse_block(value, kind, name)
    elif isinstance(value, Mapping) and typing.get_origin(kind) is dict:
        for key, one in value.items():
            _refuse(one, typing.get_args(kind)[1], f"{name}.{key}")
    elif isinstance(value, list) and (items := _items(kind)):
        hints = items if items[-1] is not ... else (items[0],) * len(value)
        if len(hints) != len(value):
            raise _wrong(name, value, _what([kind]), f"give {len(hints)} values.")
        for index, (one, hint) in enumerate(zip(value, hints, strict=True)):
            _refuse(one, hint, f"{name}[{index}]")
            if _kinds(hint) == [str] and not isinstance(one, str):
                raise _wrong(f"{name}[{index}]", one, "text", f"write it in quotes: '{one}'.")


def _required(of: Any) -> Sequence[str]:
    """Return the keys that a block must have; only those of a dataclass are known."""
    if not dataclasses.is_dataclass(of):
        return []
    missing = dataclasses.MISSING
    return [one.name for one in dataclasses.fields(of) if one.default is missing and one.default_factory is missing]


def _kinds(hint: Any) -> list[Any]:
    """Return the members of a type: those of a union, without ranges."""
    if typing.get_origin(hint) is Annotated:
        return _kinds(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [kind for part in typing.get_args(hint) for kind in _kinds(part)]
    return [hint]


def _is_block(kind: Any, free_names: bool = True) -> bool:
    """Whether a type is a block of fixed keys or, with ``free_names``, of any keys."""
    return dataclasses.is_dataclass(kind) or (free_names and (kind is dict or typing.get_origin(kind) is dict))


def _is_class(kind: Any) -> bool:
    """Whether a type is a class that a ``class_path`` names."""
    plain = inspect.isclass(kind) and typing.get_origin(kind) is None
    return plain and kind not in (*_SCALARS, dict, list, tuple, type(None)) and not dataclasses.is_dataclass(kind)


def _items(kind: Any) -> tuple[Any, ...] | None:
    """Return the types of a list's items, with ``...`` at the end for any number; None if the type is no list."""
    if kind in (list, tuple):
        return (Any, ...)
    if typing.get_origin(kind) in (list, collections.abc.Iterable, collections.abc.Sequence):
        return (*typing.get_args(kind), ...)
    return typing.get_args(kind) if typing.get_origin(kind) is tuple else None


def _what(kinds: Sequence[Any]) -> str:
    """Say what a value must be."""
    found = []
    for kind in kinds:
        if kind in _SCALARS:
            found.append(_SCALARS[kind])
        elif typing.get_origin(kind) is Literal:
            found.append(f"one of {', '.join(map(repr, typing.get_args(kind)))}")
        elif _is_block(kind):
            found.append(_BLOCK)
        elif (items := _items(kind)) is not None:
            found.append("a list" if items[-1] is ... else f"a list of {len(items)} values")
        elif _is_class(kind):
            found.append("a class")
    return " or ".join(dict.fromkeys(found))


def _meant(name: str, value: Any, kinds: Sequence[Any]) -> str:
    """Say what the author of a value may have meant."""
    for kind in kinds:
        if dataclasses.is_dataclass(kind):
            return _meant_block(name, value, hints_of(typing.cast("Any", kind)))
        if _is_block(kind):
            of_names = dataclasses.is_dataclass((*typing.get_args(kind), None)[-2])
            return "write a block for each name." if of_names else "write keys and values below it."
        if _items(kind) is not None:
            return f"did you mean {_shown(list(value) if isinstance(value, Mapping) else [value])}?"
        if _is_class(kind):
            return "give the name of a class, or a block with class_path and the arguments of the class."
    one = value[0] if isinstance(value, list) and len(value) == 1 else None
    return "give one value." if one is None or isinstance(one, list | dict) else f"did you mean {_shown(one)}?"


def _meant_block(name: str, value: Any, hints: Mapping[str, Any]) -> str:
    block = name.rpartition(".")[2]
    for key, hint in hints.items():
        if any(typing.get_origin(kind) is Literal and value in typing.get_args(kind) for kind in _kinds(hint)):
            return f"did you mean {block}: {{{key}: {value}}}?"
    keys = [key for key in hints if key not in _NO_KEYS]
    return f"write its keys below it: {', '.join(keys[:8])}{', and more' if len(keys) > 8 else ''}."


def _wrong(name: str, value: Any, what: str, meant: str) -> ConfigurationError:
    return ConfigurationError(f"{name} is {_shown(value)}; it must be {what}.", hint=meant)


def _shown(value: Any) -> str:
    """Return a value as YAML text in one line."""
    if not isinstance(value, list | dict):
        text = str(value).lower() if isinstance(value, bool) else str(value)
    else:
        text = dumped(value, one_line=True).strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
