"""Type annotations of a function tool: make their JSON schema; check and convert a call's values, nested parts too."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, Union, get_args, get_origin

import typing_extensions

_PLAIN: Mapping[object, tuple[str, str, tuple[type, ...]]] = {
    str: ("string", "a string", (str,)),
    int: ("integer", "an integer", (int,)),
    float: ("number", "a number", (int, float)),
    bool: ("boolean", "a boolean", (bool,)),
    type(None): ("null", "null", (type(None),)),
}
"""By Python type: the JSON type, its name in error messages, and the Python types of accepted values."""
SUPPORTED = (
    "str, int, float, bool, Literal, a list, tuple[..., ...] or dict[str, ...] of these, a TypedDict, or a union"
)


class Misfit(Exception):
    """A value that does not match its annotation.

    Args:
        place: Path of the value in the arguments, such as ``filters[0].year``.
        wanted: The expected type in words.
    """

    def __init__(self, place: str, value: object, wanted: str) -> None:
        super().__init__(f"{place} is {value!r}, not {wanted}")
        self.place, self.value, self.wanted = place, value, wanted


def schema_of(hint: Any, within: tuple[object, ...] = ()) -> dict[str, object]:
    """The JSON schema of an annotation.

    Args:
        hint: Annotation as ``typing.get_type_hints`` returns it.
        within: The TypedDicts that enclose it; a recursive TypedDict has no schema.

    Raises:
        TypeError: The annotation is not supported; the message is the unsupported part.
    """
    if hint in _PLAIN:
        return {"type": _PLAIN[hint][0]}
    if (members := _union(hint)) is not None:
        return {"anyOf": [schema_of(member, within) for member in members]}
    if (choices := _choices(hint)) is not None:
        return {"enum": list(choices)}
    if (item := _items(hint)) is not None:
        return {"type": "array", "items": schema_of(item, within)}
    if (values := _values(hint)) is not None:
        return {"type": "object", "additionalProperties": schema_of(values, within)}
    if typing_extensions.is_typeddict(hint) and hint not in within:
        properties = {name: schema_of(kind, (*within, hint)) for name, kind in _fields(hint).items()}
        return {"type": "object", "properties": properties, "required": _needed(hint), "additionalProperties": False}
    raise TypeError(getattr(hint, "__name__", None) if isinstance(hint, type) else repr(hint))


def value_of(hint: Any, value: object, place: str) -> object:
    """Check a value against an annotation and return it; a list becomes a tuple if the annotation is a tuple.

    Args:
        hint: Annotation that ``schema_of`` supports.
        value: Value as ``json.loads`` returns it.
        place: Path of the value in the arguments, for errors.

    Raises:
        Misfit: The value does not match.
    """
    if hint in _PLAIN:
        # In Python a bool is an int; in JSON it is not a number.
        if isinstance(value, _PLAIN[hint][2]) and (hint is bool or not isinstance(value, bool)):
            return value
    elif (members := _union(hint)) is not None:
        # The first member that accepts the value decides how it is converted.
        for member in members:
            try:
                return value_of(member, value, place)
            except Misfit:
                continue
    elif (choices := _choices(hint)) is not None:
        # Compare types too: True == 1 in Python.
        if any(type(value) is type(choice) and value == choice for choice in choices):
            return value
    elif (item := _items(hint)) is not None:
        if isinstance(value, list):
            read = [value_of(item, one, f"{place}[{i}]") for i, one in enumerate(value)]
            return tuple(read) if get_origin(hint) is tuple else read
    elif isinstance(value, dict):
        return _dict_of(hint, value, place)
    raise Misfit(place, value, _wanted(hint))


def _dict_of(hint: Any, value: Mapping[str, object], place: str) -> dict[str, object]:
    values = _values(hint)
    # dict[str, T] takes any keys, a TypedDict exactly its own.
    fields = dict.fromkeys(value, values) if values is not None else _fields(hint)
    lacks = values is None and not value.keys() >= set(_needed(hint))
    if lacks or value.keys() - fields.keys():
        raise Misfit(place, value, _wanted(hint))
    return {key: value_of(fields[key], one, f"{place}.{key}") for key, one in value.items()}


def _wanted(hint: Any) -> str:
    """The annotation in words, for the error message that a policy sees."""
    if hint in _PLAIN:
        return _PLAIN[hint][1]
    if (members := _union(hint)) is not None:
        return " or ".join(map(_wanted, members))
    if (choices := _choices(hint)) is not None:
        return f"one of {list(choices)}"
    if (item := _items(hint)) is not None:
        return f"a list, each element {_wanted(item)}"
    if (values := _values(hint)) is not None:
        return f"an object, each value {_wanted(values)}"
    needed = _needed(hint)
    return f"an object with {', '.join(name if name in needed else f'maybe {name}' for name in _fields(hint))}"


def _union(hint: Any) -> tuple[Any, ...] | None:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else None


def _choices(hint: Any) -> tuple[Any, ...] | None:
    choices = get_args(hint) if get_origin(hint) is Literal else None
    return choices if choices and all(isinstance(one, str | int | None) for one in choices) else None


def _items(hint: Any) -> Any:
    """The item type of a list, sequence or ``tuple[..., ...]``; None for other annotations."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return arguments[0] if len(arguments) == 2 and arguments[1] is Ellipsis else None
    return arguments[0] if origin in (list, collections.abc.Sequence) else None


def _values(hint: Any) -> Any:
    """The value type of a dict with string keys; None for other annotations."""
    origin, arguments = get_origin(hint), get_args(hint)
    return arguments[1] if origin in (dict, collections.abc.Mapping) and arguments[0] is str else None


def _fields(hint: Any) -> dict[str, Any]:
    return typing.get_type_hints(hint)


def _needed(hint: Any) -> list[str]:
    """The required keys of a TypedDict, in its order."""
    # With string annotations (from __future__), __required_keys__ wrongly contains NotRequired keys.
    marks = {key: get_origin(kind) for key, kind in typing.get_type_hints(hint, include_extras=True).items()}
    return [key for key, mark in marks.items() if key in hint.__required_keys__ and mark is not NotRequired]
