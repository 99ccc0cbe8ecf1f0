"""Your own tool: one typed function. The policy sees its name, docstring and annotations.

    mgrpo fit --config configs/quickstart.yaml --config examples/own_tool.yaml

Python finds the module in the folder where you start ``mgrpo``, or as an installed package. If a tool cannot do its
work, raise ``ToolError``: the policy sees the message, and the rollout continues.
"""

from __future__ import annotations

from mgrpo_lightning.errors import ToolError

KILOMETRES = {"km": 1.0, "mi": 1.609344, "nm": 1.852}


def to_kilometres(distance: float, unit: str) -> str:
    """Convert a distance in km, mi or nm (nautical miles) to kilometres."""
    if unit not in KILOMETRES:
        raise ToolError(f"{unit!r} is no unit of distance.", hint=f"give one of {list(KILOMETRES)}.")
    return f"{distance * KILOMETRES[unit]:g} km"
