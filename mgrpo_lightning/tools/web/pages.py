"""The visit tool of the live web: the main text of a page, a part at a time."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.tools.base import Tool, function_tool
from mgrpo_lightning.tools.parts import PART, shown_part
from mgrpo_lightning.tools.web.extraction import Extractor
from mgrpo_lightning.tools.web.fetch import Fetcher, Page

KEPT = 32
"""Pages whose text is kept for their next parts."""
EXTRACTOR = Extractor()
"""Of this process."""


def visit_tool(fetcher: Fetcher, *, part: int = PART) -> Tool:
    """The tool ``visit(url, part)``.

    Args:
        fetcher: Gets the pages.
        part: Characters shown at once.

    Raises:
        ConfigurationError: The package that finds the main text of a page is not installed.
    """
    size = part
    _require_extraction()
    extracted = lru_cache(KEPT)(main_text)

    async def visit(url: str, part: int = 1) -> str:
        """Read a page, or a further part of a long one."""
        page = await fetcher.get(url)
        try:
            text = await asyncio.to_thread(extracted, page)  # seconds for a page of megabytes
        except asyncio.CancelledError:
            EXTRACTOR.stop()  # the thread would go on
            raise
        return shown_part(page.url, text, part, size)

    return function_tool(visit)


def main_text(page: Page) -> str:
    """What a page says, without navigation, advertisements and scripts.

    Args:
        page: Fetched.

    Raises:
        ToolError: It says nothing, or reading it takes too much time or memory.
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
            "reading pages of the web needs the package trafilatura.", hint="pip install 'mgrpo-lightning[web]'."
        ) from error
