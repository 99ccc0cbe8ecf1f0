"""The rows of a run's journal without their texts: what tables, filters and curves need, one row a trajectory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.journal import SCHEMA, read_columns
from mgrpo_lightning.records.trajectory import Key

TEXTS = ("evidence", "metadata", "task", "spans", "messages", "calls")
"""Columns that are left to the single rollout."""
COLUMNS = [name for name in SCHEMA.names if name not in TEXTS]
Row = dict[str, Any]
"""A trajectory, by the journal's column names."""
Damaged = Callable[[Path, str], object]
"""Is told of a file that cannot be shown, and why, in one sentence."""


def read_rows(paths: Sequence[Path], damaged: Damaged) -> list[Row]:
    """The rows of one play, in the order of their keys; of one that several processes have written, the whole one.

    Args:
        paths: The play's files. One that is damaged, or is being replaced, is left out: the others can still be seen.
        damaged: Told of those that are damaged.
    """
    found: dict[Key, Row] = {}
    for row in (row for path in paths for row in _rows(path, damaged)):
        key = Key(*(row[name] for name in Key._fields))
        known = found.get(key)
        if known is None or row["num_tokens"] > known["num_tokens"]:
            found[key] = row
    return [found[key] for key in sorted(found)]


def rollouts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of one rollout after the other.

    Args:
        rows: From ``read_rows``.
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
        return list(read_columns(path, COLUMNS).to_pylist())
    except DataError as error:
        damaged(path, error.message)
        return []
