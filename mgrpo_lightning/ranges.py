"""Ranges of numbers in a team file: said once, in the type of a key, and checked before anything is made.

    lr: Annotated[float, Range(0, 10, "...")] = 1e-5

``@ranged`` checks them whenever the class is made. The command line checks the whole config first
(``commands/config_numbers.py``), and names a number with all that stands around it. What is no number, or infinite, is
out of every range that does not end at infinity.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import typing
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from mgrpo_lightning.errors import ConfigurationError

T = TypeVar("T")
MOST = 2**31 - 1
"""Of whatever is counted."""


@dataclass(frozen=True)
class Range:
    """The numbers that a key may have."""

    low: float
    high: float
    hint: str = ""
    """What is said besides the range."""
    above: bool = False
    """Whether ``low`` itself is out of it."""
    below: bool = False
    """Whether ``high`` itself is."""

    def __contains__(self, value: float) -> bool:
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high)

    def __repr__(self) -> str:
        low = f"more than {_shown(self.low)}" if self.above else f"at least {_shown(self.low)}"
        if self.high == MOST:
            return low
        if self.high == math.inf:
            return f"{low}, or .inf"
        return f"{low} and {'less than' if self.below else 'at most'} {_shown(self.high)}"


def _shown(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


Count = Annotated[int, Range(1, MOST)]
Number = Annotated[int, Range(0, MOST)]
Share = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, 1000, "0 switches it off")]
Temperature = Annotated[float, Range(0, 100, "0 is greedy")]
Seconds = Annotated[float, Range(0, 7 * 24 * 3600, above=True)]
Seed = Annotated[int, Range(0, 2**32 - 1)]


def ranged(name: str) -> Callable[[T], T]:
    """Make a class check its numbers before it is made.

    Args:
        name: What stands before its keys in errors.
    """

    def decorate(cls: Any) -> Any:
        made = cls.__init__
        signature = inspect.signature(made)

        @functools.wraps(made)
        def checked(self: object, *args: Any, **kwargs: Any) -> None:
            given = dict(signature.bind_partial(self, *args, **kwargs).arguments)
            for key, value in given.items():
                refuse(value, ranges_of(cls).get(key), f"{name}.{key}")
            made(self, *args, **kwargs)

        cls.__init__ = checked
        return cls

    return decorate


@functools.cache
def ranges_of(cls: Hashable) -> Mapping[str, Range]:
    """The ranges of a class's keys, by key.

    Args:
        cls: A dataclass or another class.
    """
    return {key: found for key, hint in hints_of(cls).items() if (found := range_in(hint)) is not None}


@functools.cache
def hints_of(cls: Any) -> Mapping[str, Any]:
    """The types of a class's keys, with their ranges; those that it hands on to the classes it derives from, too.

    Args:
        cls: A dataclass or another class.
    """
    if dataclasses.is_dataclass(cls):
        return typing.get_type_hints(cls, include_extras=True)
    hints: dict[str, Any] = {}
    for one in reversed(cls.__mro__):
        if "__init__" in vars(one):
            # of a stranger's class, annotations may be what only a type checker reads
            with suppress(NameError, TypeError):
                hints |= typing.get_type_hints(inspect.unwrap(vars(one)["__init__"]), include_extras=True)
    return hints


def range_in(hint: Any) -> Range | None:
    """The range in a type: of a number, an optional one, or the numbers of a list.

    Args:
        hint: The type.
    """
    if typing.get_origin(hint) is Annotated:
        return next((one for one in hint.__metadata__ if isinstance(one, Range)), None)
    return next((found for part in typing.get_args(hint) if (found := range_in(part)) is not None), None)


def refuse(value: Any, allowed: Range | None, name: str) -> None:
    """Refuse a number, or one of a list, that is out of its range.

    Args:
        value: Of a key; what is no number is not looked at.
        allowed: Its range; None for any.
        name: The key, with dots.

    Raises:
        ConfigurationError: A number is out of it.
    """
    if isinstance(value, list | tuple):
        for index, one in enumerate(value):
            refuse(one, allowed, f"{name}[{index}]")
    if isinstance(value, Mapping):
        for key, one in value.items():
            refuse(one, allowed, f"{name}.{key}")
    if allowed is not None and isinstance(value, int | float) and value not in allowed:
        raise ConfigurationError(f"{name} is {value}.", hint=f"give {allowed}{allowed.hint and '; '}{allowed.hint}.")
