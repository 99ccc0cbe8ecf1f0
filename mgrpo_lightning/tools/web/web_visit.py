"""The tool ``visit`` on the live web: fetch a page, extract its main text, and show it in parts."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.tools.base import Tool, function_tool
from mgrpo_lightning.tools.parts import PART, shown_part
from mgrpo_lightning.tools.web.extraction import Extractor
from mgrpo_lightning.tools.web.fetch import Fetcher, Page

KEPT = 32
"""Number of pages whose extracted text is cached, for requests of their next parts."""
EXTRACTOR = Extractor()
"""The extractor that all tools of this process share."""


def visit_tool(fetcher: Fetcher, *, part: int = PART) -> Tool:
    """The tool ``visit(url, part)``.

    Args:
        fetcher: Downloads the pages.
        part: Characters of one part.

    Raises:
        ConfigurationError: The package ``trafilatura``, which extracts the main text, is not installed.
    """
    size = part  # `visit` has a parameter named part
    _require_extraction()
    extracted = lru_cache(KEPT)(main_text)

    async def visit(url: str, part: int = 1) -> str:
        """Read a page, or a further part of a long one."""
        page = await fetcher.get(url)
        try:
            text = await asyncio.to_thread(extracted, page)  # takes seconds for a page of megabytes
        except asyncio.CancelledError:
            EXTRACTOR.stop()  # cancelling does not end the thread; this does
            raise
        return shown_part(page.url, text, part, size)

    return function_tool(visit)


def main_text(page: Page) -> str:
    """The text of a page, without navigation, advertisements and scripts.

    Raises:
        ToolError: The page has no text, or the extraction takes too much time or memory.
    """
    text = page.text
    if "html" in page.kind:
        found = EXTRACTOR.text(page.text, page.url)
        if found is None:
            raise ToolError(f"{page.url} takes too long to read.", hint="read another page.")
        text = found
    if not text.strip():
        raise ToolError(f"{page.url} has no text.", hint="read another page.")
    return text.strip()


def _require_extraction() -> None:
    try:
        import trafilatura  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "reading web pages needs the package trafilatura.", hint="run pip install 'mgrpo-lightning[web]'."
        ) from error
