"""The tool ``larger``: parse two numbers with thousands separators and units, and say which is more."""

from __future__ import annotations

import re

from mgrpo_lightning.errors import ToolError

_QUANTITY = re.compile(r"\s*(-?\d[\d,]*(?:\.\d+)?)\s*(.*?)\s*", re.DOTALL)


def larger(first: str, second: str) -> str:
    """Say which of two quantities is more; each is a number with its unit, such as 643,801 sq km."""
    (one, unit), (other, other_unit) = quantity(first), quantity(second)
    # Units are not converted: 1 km and 900 m cannot be compared here.
    if unit != other_unit:
        raise ToolError(f"the units differ: {unit!r} and {other_unit!r}.", hint="give both in one unit.")
    if one == other:
        return "both are the same."
    return f"{(first if one > other else second).strip()} is more."


def quantity(text: str) -> tuple[float, str]:
    """Parse the number and the unit of a quantity.

    Args:
        text: A number and a unit, for instance ``643,801 sq km``; commas separate thousands.

    Raises:
        ToolError: The text does not begin with a number.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ToolError(f"{text!r} does not begin with a number.", hint="write it like 643,801 sq km.")
    return float(found[1].replace(",", "")), found[2]
