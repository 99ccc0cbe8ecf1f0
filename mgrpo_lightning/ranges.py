"""Range and ``@ranged``: declare the allowed range of a number in its type; constructors refuse other numbers.

    lr: Annotated[float, Range(0, 10, "...")] = 1e-5

The decorator ``@ranged`` checks the ranges whenever the class is constructed. The command line checks the whole config
first (``commands/config_numbers.py``), so that the error gives the full key. NaN is outside every range. Infinity is
outside every range whose upper bound is not infinity.
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
"""Upper bound of every count (int32)."""


@dataclass(frozen=True)
class Range:
    """The allowed range of a number."""

    low: float
    high: float
    hint: str = ""
    """Text that the error adds to the range."""
    above: bool = False
    """Whether ``low`` itself is excluded."""
    below: bool = False
    """Whether ``high`` itself is excluded."""

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
    """Class decorator: check the numeric arguments of the constructor before it runs.

    Args:
        name: Prefix of the keys in error messages, for instance ``optimizer``.
    """

    def decorate(cls: Any) -> Any:
        made = cls.__init__
        signature = inspect.signature(made)

        @functools.wraps(made)
        def checked(self: object, *args: Any, **kwargs: Any) -> None:
            # Defaults are not checked, and a missing argument still raises Python's own TypeError in `made`.
            given = dict(signature.bind_partial(self, *args, **kwargs).arguments)
            for key, value in given.items():
                refuse(value, ranges_of(cls).get(key), f"{name}.{key}")
            made(self, *args, **kwargs)

        # Patched in place, so the decorated class keeps its identity for isinstance and for other decorators.
        cls.__init__ = checked
        return cls

    return decorate


@functools.cache
def ranges_of(cls: Hashable) -> Mapping[str, Range]:
    """Return the ranges of a class's constructor arguments, by name.

    Args:
        cls: A dataclass or another class.
    """
    return {key: found for key, hint in hints_of(cls).items() if (found := range_in(hint)) is not None}


@functools.cache
def hints_of(cls: Any) -> Mapping[str, Any]:
    """Return the types of a class's constructor arguments, with their ranges, including those of its base classes.

    Args:
        cls: A dataclass or another class.
    """
    if dataclasses.is_dataclass(cls):
        return typing.get_type_hints(cls, include_extras=True)
    hints: dict[str, Any] = {}
    # Base classes first, so that a subclass overrides their types.
    for one in reversed(cls.__mro__):
        if "__init__" in vars(one):
            # Annotations of a third-party class may name types that are imported for type checkers only.
            with suppress(NameError, TypeError):
                hints |= typing.get_type_hints(inspect.unwrap(vars(one)["__init__"]), include_extras=True)
    return hints


def range_in(hint: Any) -> Range | None:
    """Return the range in a type: of a number, of an optional number, or of the numbers in a list."""
    if typing.get_origin(hint) is Annotated:
        return next((one for one in hint.__metadata__ if isinstance(one, Range)), None)
    return next((found for part in typing.get_args(hint) if (found := range_in(part)) is not None), None)


def refuse(value: Any, allowed: Range | None, name: str) -> None:
    """Reject a number that is outside its range, also inside lists and mappings.

    Args:
        value: Value of a config key; other types than numbers are ignored.
        allowed: Its range; None allows everything.
        name: Dotted key, for the error.

    Raises:
        ConfigurationError: A number is outside the range.
    """
    if isinstance(value, list | tuple):
        for index, one in enumerate(value):
            refuse(one, allowed, f"{name}[{index}]")
    if isinstance(value, Mapping):
        for key, one in value.items():
            refuse(one, allowed, f"{name}.{key}")
    # `not in` instead of comparisons: every comparison with NaN is false, so NaN is rejected.
    if allowed is not None and isinstance(value, int | float) and value not in allowed:
        raise ConfigurationError(f"{name} is {value}.", hint=f"give {allowed}{allowed.hint and '; '}{allowed.hint}.")
