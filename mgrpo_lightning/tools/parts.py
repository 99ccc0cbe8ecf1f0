"""Show a long text in numbered parts (``part 2 of 5``), for the tools that read web pages and attached files."""

from __future__ import annotations

import math

from mgrpo_lightning.errors import ToolError

PART = 6000
"""Default characters of one part."""


def shown_part(name: str, text: str, part: int, size: int = PART) -> str:
    """One part of a text, below a line ``part I of N``; a text of one part has no such line.

    Args:
        name: Name of the text for the error message, such as its URL.
        part: Number of the part, from 1.
        size: Characters of one part.

    Raises:
        ToolError: The text has no part of this number.
    """
    # An empty text has one empty part.
    count = max(math.ceil(len(text) / size), 1)
    if not 1 <= part <= count:
        raise ToolError(f"{name} has no part {part}.", hint=f"its parts are 1 to {count}.")
    shown = text[(part - 1) * size : part * size]
    return shown if count == 1 else f"part {part} of {count}\n{shown}"
