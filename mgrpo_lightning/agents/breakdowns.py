"""Count the tool failures of a play, and log each kind of failure once, with its arguments and its traceback."""

from __future__ import annotations

import json
import logging

from mgrpo_lightning.errors import ToolBroken
from mgrpo_lightning.protocol.actions import ToolCall

log = logging.getLogger(__name__)

LONGEST = 500
"""Maximum characters of the arguments, and of the message, in the log."""


class Breakdowns:
    """Tool failures of one play. Two failures are of one kind if tool, exception type and traceback are the same.

    Args:
        told: Kinds that are logged already; shared by all plays of a team.
    """

    def __init__(self, told: set[tuple[str, str, str]]) -> None:
        self.count = 0
        self._told = told

    def add(self, call: ToolCall, error: ToolBroken, *, encrypted: bool) -> None:
        """Count a failure, and log it if it is the first of its kind.

        Args:
            call: The call that failed.
            error: The error that the policy sees; its cause is the original exception.
            encrypted: Whether the question is from an encrypted benchmark. Its text must not leak into logs, so the
                arguments and the message are left out.
        """
        self.count += 1
        # The cause is the tool's own exception; `error` itself is always a ToolBroken.
        kind = type(error.__cause__).__name__
        if (call.name, kind, error.where) in self._told:
            return
        self._told.add((call.name, kind, error.where))
        # Without the message and the arguments: both may quote an encrypted question.
        said = f"{kind} (encrypted question: its message and arguments are not shown)"
        if not encrypted:
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            said = f"{_short(str(error))} Its arguments were {_short(arguments)}"
        log.warning(
            "tool %s failed: %s\n%sFurther failures of this kind are only counted, as tool_failures.",
            call.name,
            said,
            error.where,
        )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
