"""Read a journal for the viewer without its long columns: a row for each trajectory, merged over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.journal import read_columns
from mgrpo_lightning.records.journal_schema import REWARDED, SCHEMAS, SEGMENTS
from mgrpo_lightning.records.trajectory import Key

TEXTS = ("evidence", "metadata", "task", "spans", "messages", "calls", SEGMENTS.name)
"""Long columns, and columns that belong to them; read only when the page shows a single rollout."""
COLUMNS = [name for name in SCHEMAS[REWARDED].names if name not in TEXTS]
Row = dict[str, Any]
"""Row of a trajectory, by column name of the journal."""
Damaged = Callable[[Path, str], object]
"""Callback for a file that cannot be read: its path, and the problem in one sentence."""


def read_rows(paths: Sequence[Path], damaged: Damaged) -> list[Row]:
    """Read the rows of one play, sorted by key.

    If several processes wrote the same trajectory, the row with more tokens wins: only the process that sampled it has
    all its tokens.

    Args:
        paths: The play's files. A file that is damaged or is being replaced is skipped.
        damaged: Called with each damaged file and the problem.
    """
    found: dict[Key, Row] = {}
    for row in (row for path in paths for row in _rows(path, damaged)):
        key = Key(*(row[name] for name in Key._fields))
        known = found.get(key)
        if known is None or row["num_tokens"] > known["num_tokens"]:
            found[key] = row
    return [found[key] for key in sorted(found)]


def rollouts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Group rows by rollout; each list starts with main's row.

    Args:
        rows: Rows from ``read_rows``, sorted by key.
    """
    current: list[Row] = []
    for row in rows:
        if current and (row["query"], row["rollout"]) != (current[0]["query"], current[0]["rollout"]):
            yield current
            current = []
        current.append(row)
    if current:
        yield current


def _rows(path: Path, damaged: Damaged) -> list[Row]:
    try:
        return list(read_columns(path, COLUMNS).to_pylist(maps_as_pydicts="strict"))
    except DataError as error:
        damaged(path, error.message)
        return []
