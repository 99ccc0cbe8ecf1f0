"""A comparer's subtask, which of two countries has more: write it, parse it, and decide it from the two values."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.tools.quantities import quantity

_SUBTASK = re.compile(r"Which is more: (\D+?) (-?\d[^?]*?) or (\D+?) (-?\d[^?]*)\?")


def comparison_subtask(values: Mapping[str, str]) -> str:
    """Write the subtask for a comparer: ``Which is more: France 643,801 sq km or Spain 505,370 sq km?``.

    Args:
        values: Values of two countries, by page title.
    """
    (first, value), (second, other) = values.items()
    return f"Which is more: {first} {value} or {second} {other}?"


def parse_comparison(subtask: str) -> dict[str, str] | None:
    """Parse the two values of a comparison, by page title; None if the subtask has another wording.

    Args:
        subtask: Text that the comparer was given.
    """
    found = _SUBTASK.fullmatch(subtask.strip())
    return {found[1]: found[2], found[3]: found[4]} if found and found[1] != found[3] else None


def with_more(values: Mapping[str, str]) -> str | None:
    """Return the country with more; None if the values are equal, have different units, or cannot be parsed.

    Args:
        values: Values of two countries, by page title.
    """
    (first, value), (second, other) = values.items()
    try:
        (one, unit), (two, other_unit) = quantity(value), quantity(other)
    except ToolError:
        return None
    return None if unit != other_unit or one == two else first if one > two else second
