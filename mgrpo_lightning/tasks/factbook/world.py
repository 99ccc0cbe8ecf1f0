"""World: load the Factbook snapshot as pages of facts with URLs and links; make its search and visit tools."""

from __future__ import annotations

import functools
import json
import lzma
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.tasks.factbook.cleaning import LINK_FIELDS
from mgrpo_lightning.tools.base import Tool
from mgrpo_lightning.tools.corpus_search import Passage, SearchBackend, make_backend, search_tool
from mgrpo_lightning.tools.corpus_visit import Document, visit_tool

SNAPSHOT = Path(__file__).with_name("snapshot.jsonl.xz")
LINKS = "Links"
"""Name of the last section of every page, which lists its links. Search does not index it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One fact, as written on a page."""

    section: str
    field: str
    subfield: str
    """Empty if the field has only one value."""
    text: str
    """The value; it has several lines if the source has paragraphs."""

    @property
    def label(self) -> str:
        """Label before the colon: ``Elevation - highest point``."""
        return f"{self.field} - {self.subfield}" if self.subfield else self.field

    @property
    def line(self) -> str:
        """Line of the fact on the page: ``Elevation - highest point: Mont Blanc 4,810``."""
        return f"{self.label}: {self.text}"


@dataclass(frozen=True)
class Page:
    """Page of one country or territory."""

    url: str
    title: str
    entries: tuple[Entry, ...]

    @functools.cached_property
    def fields(self) -> Mapping[tuple[str, str], tuple[Entry, ...]]:
        """The entries by (section, field), in page order."""
        grouped: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.entries:
            grouped.setdefault((entry.section, entry.field), []).append(entry)
        return {heading: tuple(entries) for heading, entries in grouped.items()}

    def entry(self, section: str, field: str, subfield: str = "") -> Entry | None:
        """Return the first entry with this heading; None if the page has none."""
        return next((e for e in self.fields.get((section, field), ()) if e.subfield == subfield), None)

    @functools.cached_property
    def passages(self) -> tuple[Passage, ...]:
        """Fields of the page as passages, including links, in page order."""
        return tuple(
            Passage(self.url, self.title, section, field, "\n".join(entry.line for entry in entries))
            for (section, field), entries in self.fields.items()
        )


class World:
    """All pages, by URL.

    Args:
        pages: Pages by URL, without links; this class adds the links.
    """

    def __init__(self, pages: Mapping[str, Page]) -> None:
        by_title = {page.title: url for url, page in pages.items()}
        self.pages: Mapping[str, Page] = {url: _linked(page, by_title) for url, page in pages.items()}
        self._by_title = by_title

    def __getitem__(self, url: str) -> Page:
        return self.pages[url]

    def url(self, title: str) -> str | None:
        """Return the URL of the page with this title; None if there is none."""
        return self._by_title.get(title)

    def passages(self) -> list[Passage]:
        """Return the passages that search indexes: all fields except links, in page order."""
        return [passage for page in self.pages.values() for passage in page.passages if passage.section != LINKS]

    def tools(self, backend: str = "fts5") -> dict[str, Tool]:
        """Make the tools ``search`` and ``visit`` over these pages.

        Args:
            backend: Name of the search backend.
        """
        documents = {url: Document(page.title, page.passages) for url, page in self.pages.items()}
        return {"search": search_tool(_index(self, backend)), "visit": visit_tool(documents)}


@functools.cache
def _index(world: World, backend: str) -> SearchBackend:
    """Build the search index; cached, because building takes a second and the index is read-only."""
    return make_backend(backend, world.passages())


def _linked(page: Page, by_title: Mapping[str, str]) -> Page:
    """Return the page with a section of links to its border countries and trade partners."""
    links = []
    for section, field, subfield in LINK_FIELDS:
        entry = page.entry(section, field, subfield)
        for name in linked_names(entry.text) if entry else ():
            if name in by_title:  # some partners have no page
                links.append(Entry(LINKS, subfield or field, name, by_title[name]))
    return Page(page.url, page.title, page.entries + tuple(links))


def linked_names(text: str) -> list[str]:
    """Return the names in a list such as ``Spain 646 km; Switzerland 525 km`` or ``Germany 11%, Italy 9% (2023)``."""
    return re.findall(r"(?:^|[;,] )([A-Z][^;,()\d]*?) <?\d", text)


@functools.cache
def load_world(snapshot: Path = SNAPSHOT) -> World:
    """Load the world of a snapshot; cached, so all callers share one copy.

    Raises:
        DataError: The file is missing or is not a snapshot.
    """
    try:
        with lzma.open(snapshot, "rt", encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        pages = [Page(r["url"], r["title"], tuple(Entry(*fact) for fact in r["facts"])) for r in records]
    except (OSError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read the Factbook snapshot {snapshot}: {error}.",
            hint="rebuild it with python -m mgrpo_lightning.tasks.factbook.build",
        ) from error
    return World({page.url: page for page in pages})
