"""Which rollouts hold a text anywhere: in what agents were asked, said, saw, called and answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.journal import read_columns

_TEXTS = ("question", "task", "answer")
_LISTS = {"messages": ("content",), "calls": ("arguments", "result")}
"""Columns of lists, with their fields of text."""


def search(paths: Sequence[Path], text: str) -> set[tuple[int, int]]:
    """Query and index of the rollouts of one play in which a text stands, whatever its case.

    Args:
        paths: The play's files. One that is damaged, or is being replaced, has nothing.
        text: To look for.
    """
    return {place for path in paths for place in _search(path, text)}


def _search(path: Path, text: str) -> Iterator[tuple[int, int]]:
    try:
        table = read_columns(path, ["query", "rollout", *_TEXTS, *_LISTS]).combine_chunks()
    except DataError:
        return
    rows: set[int] = set()
    for name in _TEXTS:
        rows.update(_holding(table[name], text))
    for name, fields in _LISTS.items():
        of: list[Any] = pc.list_parent_indices(table[name]).to_pylist()
        entries = pc.list_flatten(table[name])
        for field in fields:
            rows.update(of[entry] for entry in _holding(pc.struct_field(entries, field), text))
    places: list[Any] = list(zip(table["query"].to_pylist(), table["rollout"].to_pylist(), strict=True))
    yield from (places[row] for row in rows)


def _holding(texts: Any, text: str) -> Iterator[int]:
    """Indices of those texts of a column that hold the text."""
    found = pc.match_substring(texts, text, ignore_case=True).to_pylist()
    return (index for index, holds in enumerate(found) if holds)
