"""ParagraphWorld: pages made of the paragraphs of multi-hop questions, with URLs and the tools search and visit."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mgrpo_lightning.tools.base import Tool
from mgrpo_lightning.tools.corpus_search import Passage, make_backend, search_tool
from mgrpo_lightning.tools.corpus_visit import Document, visit_tool

SECTION = "Text"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, and the title of its page."""

    title: str
    text: str


class ParagraphWorld:
    """Pages made of paragraphs; a paragraph that several questions contain is stored once.

    Args:
        paragraphs: Paragraphs of all questions.
        backend: Name of the search backend.

    Raises:
        ConfigurationError: The search backend does not exist.
    """

    def __init__(self, paragraphs: Iterable[Paragraph], *, backend: str = "fts5") -> None:
        texts: dict[str, dict[str, None]] = {}  # by title; the inner dict is an ordered set of texts
        for one in paragraphs:
            texts.setdefault(one.title, {})[one.text] = None
        self._urls = page_urls(texts)
        passages = {title: self._page(title, list(found)) for title, found in texts.items()}
        documents = {self._urls[title]: Document(title, page) for title, page in passages.items()}
        index = make_backend(backend, (passage for page in passages.values() for passage in page))
        self.tools: dict[str, Tool] = {"search": search_tool(index), "visit": visit_tool(documents)}
        """``search(query)`` and ``visit(url, section)``."""

    def url(self, title: str) -> str:
        """Return the URL of the page with this title.

        Args:
            title: Title of one of the paragraphs.
        """
        return self._urls[title]

    def _page(self, title: str, texts: Sequence[str]) -> list[Passage]:
        url = self._urls[title]
        return [Passage(url, title, SECTION, f"Paragraph {number}", text) for number, text in enumerate(texts, start=1)]


def _slug(title: str) -> str:
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "page"


def page_urls(titles: Iterable[str]) -> dict[str, str]:
    """Assign each title a unique URL: the first free one of ``wiki/slug``, ``wiki/slug-2``, ``wiki/slug-3``, ...

    Args:
        titles: Titles without duplicates; their order decides the numbers.
    """
    urls: dict[str, str] = {}
    used: set[str] = set()
    numbers: dict[str, int] = {}  # lowest number that may be free, by URL; else many equal slugs cost quadratic time
    for title in titles:
        url = f"wiki/{_slug(title)}"
        n = numbers.get(url, 1)
        while (name := url if n == 1 else f"{url}-{n}") in used:
            n += 1
        urls[title] = name
        used.add(name)
        numbers[url] = n + 1
    return urls
