"""WebTools: search and visit on the live web, as one entry of a task's ``tools``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from mgrpo_lightning.ranges import Count, ranged
from mgrpo_lightning.tools.base import Tool
from mgrpo_lightning.tools.sets import ToolSet
from mgrpo_lightning.tools.web.engines import EngineName
from mgrpo_lightning.tools.web.fetch import FetchConfig, Fetcher
from mgrpo_lightning.tools.web.pages import visit_tool
from mgrpo_lightning.tools.web.search import WebSearch


@ranged("tools")
class WebTools(ToolSet):
    """``search(query)`` and ``visit(url, part)``.

    Args:
        engine: Search service.
        url: Of the service, where everybody has a server of their own.
        key_variable: Environment variable with its key.
        k: Hits shown.
        part: Characters of a page that are shown at once.
        fetch: Limits of reading pages; its cache and its blocked patterns hold for searching too.

    Raises:
        ConfigurationError: The address or key of the service, or a package, is missing.
    """

    def __init__(
        self,
        engine: EngineName,
        url: str | None = None,
        key_variable: str | None = None,
        k: Count = 5,
        part: Count = 6000,
        fetch: FetchConfig = FetchConfig(),  # noqa: B008 - frozen
    ) -> None:
        fetcher = Fetcher(fetch)
        cache = None if fetch.cache is None else str(Path(fetch.cache) / "searches")
        search = WebSearch(engine, url, key_variable, k=k, cache=cache, blocks=fetcher.blocks)
        self._tools = [search.tool(), visit_tool(fetcher, part=part)]

    @override
    def tools(self) -> Sequence[Tool]:
        return self._tools


@ranged("tools")
class Retriever(ToolSet):
    """``search(query)`` over a retrieval server as Search-R1 has it, which shows whole passages.

    Args:
        url: Of its ``/retrieve``.
        k: Passages shown.
        cache: Folder of remembered answers, shared by runs; None remembers nothing.
    """

    def __init__(self, url: str, k: Count = 3, cache: str | None = None) -> None:
        self._tools = [WebSearch("retriever", url, k=k, cache=cache).tool()]

    @override
    def tools(self) -> Sequence[Tool]:
        return self._tools
