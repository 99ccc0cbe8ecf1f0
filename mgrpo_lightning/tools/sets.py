"""ToolSet: several tools that are set up together, such as a search and the reader of what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.tools.base import Tool, load_tool


class ToolSet(ABC):
    """Named in a team file by its class and arguments."""

    @abstractmethod
    def tools(self) -> Sequence[Tool]:
        """The tools, each with a name of its own."""


def collected(named: Sequence[str | ToolSet]) -> dict[str, Tool]:
    """The tools of a task by the names under which roles may call them.

    Args:
        named: Dotted paths of functions or tool objects, and sets of tools.

    Raises:
        ConfigurationError: One does not exist, or two have one name.
    """
    found: dict[str, Tool] = {}
    for one in named:
        for tool in [load_tool(one)] if isinstance(one, str) else one.tools():
            if tool.name in found:
                raise ConfigurationError(f"two tools are called {tool.name!r}.", hint="rename one, or leave it out.")
            found[tool.name] = tool
    return found
