"""Pages: unique URLs and titles, one fact a line, links that lead somewhere, text without HTML."""

from __future__ import annotations

import asyncio
import re

import pytest

from mgrpo_lightning.tasks.factbook.world import LINKS, World, linked_names


def test_size_and_identity(world: World) -> None:
    assert len(world.pages) == 256
    assert len(world.passages()) == 32_606
    titles = {page.title for page in world.pages.values()}
    assert len(titles) == 256
    assert all(url == page.url and re.fullmatch(r"factbook/[a-z0-9-]+", url) for url, page in world.pages.items())
    assert all(world.url(page.title) == page.url for page in world.pages.values())
    assert not [title for title in titles if title.lower() == "none" or not title]


def test_text_is_plain(world: World) -> None:
    texts = [entry.line for page in world.pages.values() for entry in page.entries]
    assert not [text for text in texts if re.search(r"</?[a-z]+>|&[a-z]+;|\u00a0|  |\n\n| $", text)]


def test_a_page_reads_one_fact_a_line(world: World) -> None:
    read = world.tools()["visit"]
    lines = asyncio.run(read(url="factbook/france", section="Elevation")).splitlines()
    assert lines[:4] == [
        "France | Geography",
        "Elevation - highest point: Mont Blanc 4,810",
        "Elevation - lowest point: Rhone River delta -2 m",
        "Elevation - mean elevation: 375 m",
    ]


def test_links_lead_to_neighbours_and_partners(world: World) -> None:
    links = [entry for entry in world["factbook/france"].entries if entry.section == LINKS]
    neighbours = [entry.subfield for entry in links if entry.field == "border countries"]
    assert neighbours == ["Andorra", "Belgium", "Germany", "Italy", "Luxembourg", "Monaco", "Spain", "Switzerland"]
    assert {entry.text for page in world.pages.values() for entry in page.entries if entry.section == LINKS} <= set(
        world.pages
    )
    assert "Links" not in {passage.section for passage in world.passages()}
    shown = asyncio.run(world.tools()["visit"](url="factbook/france", section="Links"))
    assert "border countries - Spain: factbook/spain" in shown.splitlines()


def test_nearly_every_linked_name_is_a_page(world: World) -> None:
    fields = [("Geography", "Land boundaries", "border countries"), ("Economy", "Exports - partners", "")]
    names = [
        name
        for page in world.pages.values()
        for heading in fields
        if (entry := page.entry(*heading))
        for name in linked_names(entry.text)
    ]
    assert len(names) > 1700
    unknown = [name for name in names if world.url(name) is None]
    assert len(unknown) < 0.01 * len(names), unknown


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Spain 646 km; Switzerland 525 km", ["Spain", "Switzerland"]),
        ("Germany 11%, Cote d'Ivoire 9%, Chad <1% (2023)", ["Germany", "Cote d'Ivoire", "Chad"]),
        ("none", []),
    ],
)
def test_linked_names(text: str, names: list[str]) -> None:
    assert linked_names(text) == names
