"""The tool ``search`` over a local corpus: BM25 (SQLite FTS5) over passages; hits show URL and heading, not the text.

The agent must visit a page to read it. A backend is any object with ``search(query, k)``. The default is SQLite's FTS5
in memory: BM25 over title, heading and text of a passage. A word in the title counts most, as in most site searches,
and a query that equals a title finds its page first.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.tools.base import Tool, function_tool

CACHE_SIZE = 1 << 16
"""Number of queries whose results a backend caches: the rollouts of a group often search for the same words."""


@dataclass(frozen=True, slots=True)
class Passage:
    """The unit of search: one field of one page."""

    url: str
    title: str
    section: str
    field: str
    text: str

    @property
    def hit(self) -> str:
        """The line in a result list, for instance ``factbook/france | France | Geography: Elevation``."""
        return f"{self.url} | {self.title} | {self.section}: {self.field}"


WEIGHTS = (10.0, 5.0, 1.0)
"""BM25 weights of a word in the title, the heading and the text of a passage."""


class SearchBackend(Protocol):
    """Finds passages by a query."""

    def search(self, query: str, k: int) -> list[Passage]:
        """The k best passages for a query, best first; fewer if fewer match. The query may be any text."""
        ...


class Fts5Backend:
    """BM25 search in SQLite's full-text index, in memory; read-only after construction.

    Args:
        passages: The corpus. Passages of equal rank are sorted by their order here.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = list(passages)
        self._titled: dict[str, dict[str, list[int]]] = {}
        """Row numbers of a page's passages: normalised title -> URL -> rows."""
        for row, passage in enumerate(self._passages):
            self._titled.setdefault(_plain(passage.title), {}).setdefault(passage.url, []).append(row)
        # Worker threads may search: SQLite serialises the connection, and nothing is written after construction.
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        # The porter tokenizer stems words, so that "exports" finds "export".
        self._database.execute(
            "CREATE VIRTUAL TABLE passages USING fts5(title, heading, text, tokenize='porter unicode61')"
        )
        rows = ((i, p.title, f"{p.section}: {p.field}", p.text) for i, p in enumerate(self._passages))
        self._database.executemany("INSERT INTO passages(rowid, title, heading, text) VALUES (?, ?, ?, ?)", rows)
        self._database.execute("INSERT INTO passages(passages) VALUES ('optimize')")
        self._database.commit()
        self._database.execute("PRAGMA query_only = ON")
        self._rows = functools.lru_cache(CACHE_SIZE)(self._find)

    def search(self, query: str, k: int) -> list[Passage]:
        """The k best passages with a word of the query; first, one passage of each page with the query as its title."""
        return [self._passages[row] for row in self._rows(query, k)]

    def _find(self, query: str, k: int) -> tuple[int, ...]:
        if not (match := fts5_query(query)):
            return ()
        pages = list(self._titled.get(_plain(query), {}).values())
        pages.sort(key=lambda rows: self._passages[rows[0]].title != query)  # exact case first
        meant = [row for rows in pages[:k] for row in self._ranked(match, 1, rows)]
        return (*meant, *(row for row in self._ranked(match, k) if row not in meant))[:k]

    def _ranked(self, match: str, k: int, among: Sequence[int] | None = None) -> list[int]:
        # These are row numbers of our own, so they may stand in the SQL text.
        places = "" if among is None else f"AND rowid IN ({', '.join(map(str, among))})"
        # FTS5's bm25 is smaller for better matches, so the ascending order puts the best first; rowid breaks ties.
        order = "ORDER BY bm25(passages, ?, ?, ?), rowid LIMIT ?"
        sql = f"SELECT rowid FROM passages WHERE passages MATCH ? {places} {order}"
        return [row for (row,) in self._database.execute(sql, (match, *WEIGHTS, k))]


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def fts5_query(text: str) -> str:
    """An FTS5 query that matches any word of a text; "" if it has no word. Words are quoted, so none acts as syntax."""
    return " OR ".join(f'"{word}"' for word in dict.fromkeys(re.findall(r"\w+", text.lower())))


BACKENDS: Mapping[str, Callable[[Iterable[Passage]], SearchBackend]] = {"fts5": Fts5Backend}
"""Search backends by their name in a team file."""


def make_backend(name: str, passages: Iterable[Passage]) -> SearchBackend:
    """Make a search backend over a corpus.

    Raises:
        ConfigurationError: There is no backend of that name.
    """
    if name not in BACKENDS:
        raise ConfigurationError(
            f"the search backend {name!r} does not exist.", hint=f"give one of {sorted(BACKENDS)}."
        )
    return BACKENDS[name](passages)


def search_tool(backend: SearchBackend, *, k: int = 5) -> Tool:
    """The tool ``search(query)``: the k best hits, one line each: ``1. url | title | section: field``."""

    def search(query: str) -> str:
        """Find pages by keywords."""
        hits = backend.search(query, k)
        if not hits:
            raise ToolError(f"nothing found for {query!r}.", hint="search for other words.")
        return "\n".join(f"{number}. {passage.hit}" for number, passage in enumerate(hits, start=1))

    return function_tool(search)
