"""An own tool: one typed function. Its name, docstring and annotations are what the policy is told.

    mgrpo fit --config configs/quickstart.yaml --config examples/own_tool.yaml

The module is found from the folder in which ``mgrpo`` is started, or if it is installed. What a tool cannot do it says
with a ``ToolError``: the policy sees the message, and play goes on.
"""

from __future__ import annotations

from mgrpo_lightning.errors import ToolError

KILOMETRES = {"km": 1.0, "mi": 1.609344, "nm": 1.852}


def to_kilometres(distance: float, unit: str) -> str:
    """Convert a distance in km, mi or nm (nautical miles) to kilometres."""
    if unit not in KILOMETRES:
        raise ToolError(f"{unit!r} is no unit of distance.", hint=f"give one of {list(KILOMETRES)}.")
    return f"{distance * KILOMETRES[unit]:g} km"
