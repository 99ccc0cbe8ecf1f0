"""Split the countries into train, validation and test by a hash of the page's URL, independent of the run's seed.

The split must never change: the embedded model was pretrained on the training countries, so none of them may become a
held-out country of a later run.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable

from mgrpo_lightning.records.question import Split

SHARES = {"train": 70, "validation": 15, "test": 15}
"""Share of each split, in percent of the countries."""

ORDER: tuple[Split, ...] = ("train", "validation", "test")


@functools.cache
def split_of(url: str) -> Split:
    """Return the split of a country's page."""
    # Not hash(): Python salts the hash of strings, so it differs between processes.
    place = int.from_bytes(hashlib.blake2b(url.encode(), digest_size=8).digest(), "big") % 100
    return "train" if place < SHARES["train"] else "validation" if place < 100 - SHARES["test"] else "test"


def question_split(urls: Iterable[str], *, answer_url: str) -> Split | None:
    """Return the split of a question; None if the question must not be used.

    The answer's country decides the split. If the gold path contains a page of a later split (in the order train,
    validation, test), the question is dropped. So training never needs a held-out page, and validation never needs a
    test page.

    Args:
        urls: URLs of the pages on the gold path.
        answer_url: URL of the page of the last hop.
    """
    split = split_of(answer_url)
    return split if all(ORDER.index(split_of(url)) <= ORDER.index(split) for url in urls) else None
