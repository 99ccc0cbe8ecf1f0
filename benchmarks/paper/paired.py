"""Paired sign-flip test: exact p-value that one team answers the same questions better than another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def sign_flip(changes: Sequence[int]) -> float:
    """Two-sided p-value of a sum of changes, exact over every assignment of signs.

    Args:
        changes: One number a question.
    """
    ways = Counter({0: 1})
    for change in filter(None, changes):
        flipped = Counter[int]()
        for total, count in ways.items():
            flipped[total + change] += count
            flipped[total - change] += count
        ways = flipped
    extreme = sum(count for total, count in ways.items() if abs(total) >= abs(sum(changes)))
    return extreme / ways.total()
