"""Breakdowns: tools that failed in a play, each failure told once, with what led to it, and all of them counted."""

from __future__ import annotations

import json
import logging

from mgrpo_lightning.errors import ToolBroken
from mgrpo_lightning.protocol.actions import ToolCall

log = logging.getLogger(__name__)

LONGEST = 500
"""Characters of arguments and message that are told."""


class Breakdowns:
    """What broke down, by tool, kind of error and place in the code."""

    def __init__(self) -> None:
        self.count = 0
        """Of the play that is on, or was last."""
        self._told: set[tuple[str, str, str]] = set()

    def add(self, call: ToolCall, error: ToolBroken, *, sealed: bool) -> None:
        """Count a failure, and tell it if it is the first of its kind.

        Args:
            call: What was called.
            error: What the policy sees.
            sealed: Whether the question must not leave the machine: then arguments and message are not told.
        """
        self.count += 1
        kind = type(error.__cause__).__name__
        if (call.name, kind, error.where) in self._told:
            return
        self._told.add((call.name, kind, error.where))
        said = f"{kind} (of a sealed question: message and arguments are not shown)"
        if not sealed:
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            said = f"{_short(str(error))} Its arguments were {_short(arguments)}"
        log.warning(
            "tool %s broke down: %s\n%sFurther failures like this one are counted as tool_failures.",
            call.name,
            said,
            error.where,
        )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
