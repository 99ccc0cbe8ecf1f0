"""ToolSet: base class of tools with a common configuration; collect a task's tools by name, refuse duplicates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.tools.base import Tool, load_tool


class ToolSet(ABC):
    """A group of tools; a team file gives its class and arguments."""

    @abstractmethod
    def tools(self) -> Sequence[Tool]:
        """The tools of the set; their names differ."""


def collected(named: Sequence[str | ToolSet]) -> dict[str, Tool]:
    """The tools of a task, by the names that calls use.

    Args:
        named: Dotted paths of functions or tool objects, and tool sets.

    Raises:
        ConfigurationError: A tool does not exist, or two tools have the same name.
    """
    found: dict[str, Tool] = {}
    for one in named:
        for tool in [load_tool(one)] if isinstance(one, str) else one.tools():
            if tool.name in found:
                raise ConfigurationError(f"two tools have the name {tool.name!r}.", hint="rename or remove one.")
            found[tool.name] = tool
    return found
