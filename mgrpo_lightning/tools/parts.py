"""A long text, shown a part at a time: what tools that read pages and files answer."""

from __future__ import annotations

import math

from mgrpo_lightning.errors import ToolError

PART = 6000
"""Characters shown at once."""


def shown_part(name: str, text: str, part: int, size: int = PART) -> str:
    """One part of a text, with a line that says which of how many, unless it is all.

    Args:
        name: What the text is of, for the error.
        text: All of it.
        part: Which part, counted from 1.
        size: Characters of a part.

    Raises:
        ToolError: There is no such part.
    """
    count = max(math.ceil(len(text) / size), 1)
    if not 1 <= part <= count:
        raise ToolError(f"{name} has no part {part}.", hint=f"its parts are 1 to {count}.")
    shown = text[(part - 1) * size : part * size]
    return shown if count == 1 else f"part {part} of {count}\n{shown}"
