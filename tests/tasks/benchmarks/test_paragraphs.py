"""The world of paragraphs: every title has a URL of its own, and which one depends on the titles before it alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.tasks.benchmarks.paragraphs import page_urls


def by_search(titles: list[str]) -> dict[str, str]:
    """The first name that no earlier title has, found by trying all of them; slugs are lower case here."""
    urls: dict[str, str] = {}
    for title in titles:
        slug = title.lower().replace(" ", "-")
        names = [f"wiki/{slug}", *(f"wiki/{slug}-{n}" for n in range(2, len(titles) + 2))]
        urls[title] = next(name for name in names if name not in urls.values())
    return urls


def test_namesakes_are_numbered_past_titles_that_look_like_their_numbers() -> None:
    assert page_urls(["Boat 2", "Boat", "boat", "BOAT", "boat 2", "Ship"]) == {
        "Boat 2": "wiki/boat-2",
        "Boat": "wiki/boat",
        "boat": "wiki/boat-3",
        "BOAT": "wiki/boat-4",
        "boat 2": "wiki/boat-2-2",
        "Ship": "wiki/ship",
    }


@given(st.lists(st.from_regex(r"[aA]( [1-4]){0,2}", fullmatch=True), unique=True))
def test_urls_are_the_first_free_ones(titles: list[str]) -> None:
    assert page_urls(titles) == by_search(titles)
