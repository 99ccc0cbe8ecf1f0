"""Records to publish, and what a tail has read of them."""

from __future__ import annotations

from collections.abc import Iterable

from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.store.record import Record
from mgrpo_lightning.store.tail import Entry


def call(number: int, text: str = "find it", step: int = 0) -> Record:
    return Record("delegations", "train", Key(step, number, 0, 1), "searcher", text=text, parent=0)


def records(entries: Iterable[Entry]) -> list[Record]:
    return [entry.record for entry in entries]
