"""WebTools (search and visit) and Retriever (search): the web's ToolSets, as entries of a task's ``tools``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from mgrpo_lightning.ranges import Count, ranged
from mgrpo_lightning.tools.base import Tool
from mgrpo_lightning.tools.sets import ToolSet
from mgrpo_lightning.tools.web.engines import EngineName
from mgrpo_lightning.tools.web.fetch import FetchConfig, Fetcher
from mgrpo_lightning.tools.web.web_search import WebSearch
from mgrpo_lightning.tools.web.web_visit import visit_tool


@ranged("tools")
class WebTools(ToolSet):
    """The tools ``search(query)`` and ``visit(url, part)`` on the live web.

    Args:
        engine: Name of the search service.
        url: Address of the service; needed for services that users run themselves.
        key_variable: Environment variable with the service's API key.
        k: Maximum hits shown.
        part: Characters of a page that one visit shows.
        fetch: Limits of reading pages. Its cache folder and its blocked patterns also apply to searching.

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
        # A folder of its own, so that search results do not lie among the pages.
        cache = None if fetch.cache is None else str(Path(fetch.cache) / "searches")
        search = WebSearch(engine, url, key_variable, k=k, cache=cache, blocks=fetcher.blocks)
        self._tools = [search.tool(), visit_tool(fetcher, part=part)]

    @override
    def tools(self) -> Sequence[Tool]:
        return self._tools


@ranged("tools")
class Retriever(ToolSet):
    """The tool ``search(query)`` over a retrieval server with the API of Search-R1; it shows whole passages.

    Args:
        url: Address of the server's ``/retrieve``.
        k: Maximum passages shown.
        cache: Folder of the result cache, which runs may share; None: no cache.
    """

    def __init__(self, url: str, k: Count = 3, cache: str | None = None) -> None:
        self._tools = [WebSearch("retriever", url, k=k, cache=cache).tool()]

    @override
    def tools(self) -> Sequence[Tool]:
        return self._tools
