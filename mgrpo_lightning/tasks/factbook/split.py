"""Which countries are for training: a fixed split by hash of the page's URL, whatever the seed of a run.

The embedded model relies on it: what it was pretrained on must never become a held-out country of some later run.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable

from mgrpo_lightning.records.question import Split

SHARES = {"train": 70, "validation": 15, "test": 15}
"""Percent of the countries."""

ORDER: tuple[Split, ...] = ("train", "validation", "test")


@functools.cache
def split_of(url: str) -> Split:
    """The split of a country's page."""
    place = int.from_bytes(hashlib.blake2b(url.encode(), digest_size=8).digest(), "big") % 100
    return "train" if place < SHARES["train"] else "validation" if place < 100 - SHARES["test"] else "test"


def question_split(urls: Iterable[str], *, answer_url: str) -> Split | None:
    """The split of a question, None if it belongs to none.

    The answer's country decides. A question whose gold path crosses a page of a later split (train, validation, test)
    is left out, so that training never needs a held-out page, nor validation a test page.

    Args:
        urls: The pages of its gold path.
        answer_url: The page of its last hop.
    """
    split = split_of(answer_url)
    return split if all(ORDER.index(split_of(url)) <= ORDER.index(split) for url in urls) else None
