"""Pages that are made to take long or much: read in bounds or told to be too much, and the next one is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mgrpo_lightning.tools.web.extraction import Extractor, plain_text

pytest.importorskip("trafilatura")

URL = "http://a.example/"
PARAGRAPH = "The Blue Boat was built by Ann Brand in Delft, where she had learned the trade from her mother. "
PAGE = f"<html><body><nav>Shop</nav><article><h1>Boats</h1><p>{PARAGRAPH * 4}</p></article></body></html>"
ROW = f"<tr>{'<td>cell</td>' * 10}</tr>"
LINKS = "".join(f'<a href="/{n}">link {n}</a> ' for n in range(100_000))
ATTRIBUTES = " ".join(f"a{n}=1" for n in range(300_000))
PAGES = {
    "40,000 cells": f"<html><body><article><p>Intro.</p><table>{ROW * 4000}</table></article></body></html>",
    "100,000 links": f"<html><body>{LINKS}</body></html>",
    "200,000 levels": f"<html><body>{'<div>' * 200_000}x",
    "an open tag": "<" * 2_000_000,
    "open comments": "<!--" * 500_000,
}
ENDLESS = f"<html><body><p {ATTRIBUTES}>x</p>"
"""Time that is spent in C alone, which nothing but the end of the process ends."""
READ = {"40,000 cells": "cell", "100,000 links": "link 99999"}


@pytest.fixture(scope="module")
def extractor() -> Iterator[Extractor]:
    found = Extractor(seconds=1.0, in_all=30.0)
    yield found
    found.stop()
    found.text("", URL)  # it is seen that it has ended, and none is left


@pytest.mark.parametrize("kind", PAGES)
def test_no_page_takes_long_and_the_next_one_is_read(extractor: Extractor, kind: str) -> None:
    started = time.monotonic()
    text = extractor.text(PAGES[kind], URL)
    assert time.monotonic() - started < 40
    assert text is None or READ.get(kind, "") in text
    assert text is not None or kind not in READ
    assert (extractor.text(PAGE, URL) or "").startswith("# Boats\n\nThe Blue Boat")


@pytest.mark.parametrize(("page", "bounds"), [(ENDLESS, {"in_all": 1.0}), (PAGES["100,000 links"], {"memory": 2**28})])
def test_what_cannot_be_stopped_is_killed_and_memory_is_bounded(page: str, bounds: dict[str, Any]) -> None:
    extractor = Extractor(**{"seconds": 1.0, **bounds})
    text = extractor.text(page, URL)
    assert text is None or "link 99999" in text
    extractor._in_all = 30.0
    assert "Blue Boat" in (extractor.text(PAGE, URL) or "")
    extractor.stop()
    assert extractor._process is not None
    extractor._process.communicate()


def test_whoever_does_not_want_it_any_more_need_not_wait(extractor: Extractor) -> None:
    extractor.text(PAGE, URL)  # the process is there
    found: list[str | None] = []
    pages = [threading.Thread(target=lambda: found.append(extractor.text(ENDLESS, URL))) for _ in "ab"]
    for page in pages:
        page.start()
    started = time.monotonic()
    while any(page.is_alive() for page in pages):
        extractor.stop()
        time.sleep(0.05)
    assert time.monotonic() - started < 5
    assert found == [None, None]
    assert "Blue Boat" in (extractor.text(PAGE, URL) or "")


def test_plain_text_has_no_scripts() -> None:
    page = "<html><head><style>p {}</style></head><body>one <script>two()</script> three<p>four  <b>five</b></p>"
    assert plain_text(page) == "one\nthree\nfour\nfive"
