"""The rows of a run's journal without their texts: what tables, filters and curves need, one row a trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mgrpo_lightning.journal import SCHEMA
from mgrpo_lightning.trajectory import Key

TEXTS = ("evidence", "metadata", "task", "spans", "messages", "calls")
"""Columns that are left to the single rollout."""
COLUMNS = [name for name in SCHEMA.names if name not in TEXTS]
Row = dict[str, Any]
"""A trajectory, by the journal's column names."""


def read_rows(paths: Sequence[Path]) -> list[Row]:
    """The rows of one play, in the order of their keys; of one that several processes have written, the whole one.

    Args:
        paths: The play's files. One that is damaged, or is being replaced, is left out: the others can still be seen.
    """
    found: dict[Key, Row] = {}
    for row in (row for path in paths for row in _rows(path)):
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


def _rows(path: Path) -> list[Row]:
    try:
        return list(pq.read_table(path, columns=COLUMNS, partitioning=None).to_pylist())
    except (OSError, pa.ArrowException):
        return []
