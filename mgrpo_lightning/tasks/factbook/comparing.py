"""The subtask of a second specialist: which of two countries has more, given what a searcher found about each."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.tools.quantities import quantity

_SUBTASK = re.compile(r"Which is more: (\D+?) (-?\d[^?]*?) or (\D+?) (-?\d[^?]*)\?")


def comparison_subtask(values: Mapping[str, str]) -> str:
    """What main asks a comparer: ``Which is more: France 643,801 sq km or Spain 505,370 sq km?``.

    Args:
        values: Of two countries, by their titles.
    """
    (first, value), (second, other) = values.items()
    return f"Which is more: {first} {value} or {second} {other}?"


def parse_comparison(subtask: str) -> dict[str, str] | None:
    """The two values that a subtask wants compared, by title; None if it is worded otherwise.

    Args:
        subtask: What a comparer was asked.
    """
    found = _SUBTASK.fullmatch(subtask.strip())
    return {found[1]: found[2], found[3]: found[4]} if found and found[1] != found[3] else None


def with_more(values: Mapping[str, str]) -> str | None:
    """Who has more, None where that cannot be said.

    Args:
        values: Of two countries, by their titles.
    """
    (first, value), (second, other) = values.items()
    try:
        (one, unit), (two, other_unit) = quantity(value), quantity(other)
    except ToolError:
        return None
    return None if unit != other_unit or one == two else first if one > two else second
