"""Full-text search of the viewer: find rollouts whose question, messages, calls, results or answers hold a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.journal import read_columns

_TEXTS = ("question", "task", "answer")
_LISTS = {"messages": ("content",), "calls": ("arguments", "result")}
"""List columns, with their text fields."""


def search(paths: Sequence[Path], text: str) -> set[tuple[int, int]]:
    """Find the rollouts of one play that contain a text, as (query, rollout index); case does not matter.

    Args:
        paths: The play's files. A file that is damaged or is being replaced is skipped.
        text: Text to search for.
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
        # list_flatten loses the rows; list_parent_indices maps each entry back to its row.
        of: list[Any] = pc.list_parent_indices(table[name]).to_pylist()
        entries = pc.list_flatten(table[name])
        for field in fields:
            rows.update(of[entry] for entry in _holding(pc.struct_field(entries, field), text))
    places: list[Any] = list(zip(table["query"].to_pylist(), table["rollout"].to_pylist(), strict=True))
    yield from (places[row] for row in rows)


def _holding(texts: Any, text: str) -> Iterator[int]:
    """Yield the indices of the entries of a column that contain the text."""
    found = pc.match_substring(texts, text, ignore_case=True).to_pylist()
    return (index for index, holds in enumerate(found) if holds)
