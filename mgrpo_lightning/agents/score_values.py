"""Check a score that a user's code returned: it becomes a float in [0, 1], or an error names who returned what."""

from __future__ import annotations

import math
import reprlib
from typing import Any

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.question import Question


def checked_score(score: Any, what: str, question: Question) -> float:
    """Return a score as a float in [0, 1].

    Args:
        score: A real number of any type: of Python, numpy or torch, a fraction or a bool.
        what: The method or function that returned it, for the error.
        question: The question that was scored.

    Raises:
        DataError: It is no number in [0, 1].
    """
    try:
        scalar = score.item() if hasattr(score, "item") else score
        # float("0.5") would work, but code that returns a string has a bug.
        number = math.nan if isinstance(scalar, str | bytes | bytearray) else float(scalar)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):  # RuntimeError: a torch tensor of several elements
        number = math.nan
    if not 0 <= number <= 1:  # also true for nan
        raise DataError(
            f"{what} scored question {question.id!r} with {reprlib.repr(score)}.",
            hint="return a number from 0 to 1, or raise a ScoringError if the answer cannot be scored.",
        )
    return number
