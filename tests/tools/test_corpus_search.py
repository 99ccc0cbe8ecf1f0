"""The search tool and its FTS5 backend: any text is a query, hits hide the text, and the index is read-only."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.tools.corpus_search import Fts5Backend, Passage, fts5_query, make_backend, search_tool

PASSAGES = [
    Passage("w/france", "France", "Geography", "Elevation", "highest point: Mont Blanc"),
    Passage("w/france", "France", "Government", "Capital", "Capital: Paris"),
    Passage("w/peru", "Peru", "Government", "Capital", "Capital: Lima. Trades with France"),
    Passage("w/texas", "Texas", "Places", "Paris", "Paris: a town"),
]
BACKEND = Fts5Backend(PASSAGES)


@given(st.text(max_size=80))
@example('"')
@example("a AND OR NOT NEAR(b, 2) *")
@example("title:France ^x -y (")
@example("''; DROP TABLE passages; --")
@example("\x00 \ud7ff")
def test_any_text_is_a_query(query: str) -> None:
    hits = BACKEND.search(query, 5)
    assert len(hits) == len(set(hits)) <= 5


def test_operators_are_words_and_nothing_else() -> None:
    assert fts5_query('capital AND "Paris" NEAR') == '"capital" OR "and" OR "paris" OR "near"'
    assert fts5_query("?! ...") == ""
    assert [hit.url for hit in BACKEND.search("NOT Lima", 5)] == ["w/peru"]


def test_a_word_in_the_title_counts_most_and_in_the_heading_more_than_in_the_text() -> None:
    assert [hit.url for hit in BACKEND.search("France", 5)] == ["w/france", "w/france", "w/peru"]
    assert [hit.url for hit in BACKEND.search("Paris", 5)] == ["w/texas", "w/france"]


BOATS = [
    Passage("w/boat-song", "The Blue Boat Song", "Text", "Blue Boat", "blue boat, blue boat, blue boat"),
    Passage("w/boat", "Blue Boat", "Text", "Paragraph 1", "A long text. " * 50),
    Passage("w/boat", "Blue Boat", "Text", "Paragraph 2", "More of it. " * 50),
    Passage("w/boat-2", "Blue boat", "Text", "Paragraph 1", "A dish of fish. " * 50),
    Passage("w/blue", "Blue Boat Blue Boat", "Text", "Paragraph 1", "It."),
    Passage("w/half", "\u00bd", "Text", "Paragraph 1", "A half."),
]


@pytest.mark.parametrize("title", sorted({passage.title for passage in BOATS}))
def test_who_searches_for_a_title_gets_its_page_first(title: str) -> None:
    backend = Fts5Backend(BOATS)
    for query in (title, f"  {title.upper()} "):
        hits = backend.search(query, 6)
        assert hits[0].title.casefold() == title.casefold()
        assert len(set(hits)) == len(hits)
    assert backend.search(title, 1)[0].title == title, "of titles that differ by case, the one that is written so"


def test_only_the_best_passage_of_a_page_goes_before_better_ones_of_others() -> None:
    assert [hit.url for hit in Fts5Backend(BOATS).search("blue boat", 9)][:3] == ["w/boat", "w/boat-2", "w/blue"]
    assert len(Fts5Backend(BOATS).search("Blue Boat", 1)) == 1


def test_word_forms_and_accents_do_not_matter() -> None:
    backend = Fts5Backend([Passage("w/a", "Ålesund", "S", "Exports", "")])
    assert backend.search("alesund", 1) == backend.search("export", 1) != []


def test_the_index_cannot_be_written_and_serves_threads() -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        BACKEND._database.execute("DELETE FROM passages")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: BACKEND.search(f"France {i}", 2)[0].url, range(64)))
    assert found == ["w/france"] * 64


def test_hits_are_lines_without_values() -> None:
    tool = search_tool(BACKEND, k=2)
    lines = asyncio.run(tool(query="capital of France")).split("\n")
    assert lines[0] == "1. w/france | France | Government: Capital"
    assert len(lines) == 2
    assert not any(re.search("Paris|Lima|Mont Blanc", line) for line in lines)
    assert tool.parameters["required"] == ["query"]


def test_no_hit_is_a_tool_error_with_a_hint() -> None:
    with pytest.raises(ToolError, match=r"nothing found for 'zzz'.*other words"):
        asyncio.run(search_tool(BACKEND)(query="zzz"))


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'bing'.*fts5"):
        make_backend("bing", PASSAGES)
