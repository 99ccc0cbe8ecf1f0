"""The visit tool of the live web: the main text of a page, a part at a time."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.tools.base import Tool, function_tool
from mgrpo_lightning.tools.parts import PART, shown_part
from mgrpo_lightning.tools.web.fetch import Fetcher, Page

KEPT = 32
"""Pages whose text is kept for their next parts."""


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
        text = await asyncio.to_thread(extracted, page)  # seconds for a page of megabytes, in which nobody could play
        return shown_part(page.url, text, part, size)

    return function_tool(visit)


def main_text(page: Page) -> str:
    """What a page says, without navigation, advertisements and scripts.

    Args:
        page: Fetched.

    Raises:
        ToolError: It says nothing.
    """
    text = page.text
    if "html" in page.kind:
        from trafilatura import extract

        text = extract(page.text, url=page.url, output_format="markdown", include_comments=False) or ""
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
