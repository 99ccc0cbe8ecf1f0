"""Rows of a benchmark's files: found in a folder or on the hub, read from Parquet, CSV, JSON or JSON lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.unicode import encodable

Row = Mapping[str, Any]
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
"""The name of one of the files that a split on the hub is cut into, counted from 0."""


@dataclass(frozen=True)
class Source:
    """Where a benchmark is to be had, for whoever lacks it."""

    name: str
    where: str
    """Repository or address."""
    terms: str
    """Under which it may be used."""
    columns: Sequence[Sequence[str]]
    """What every row has; several spellings of one column stand together."""

    def missing(self, problem: str) -> DataError:
        """The error of somebody who does not have it.

        Args:
            problem: What was looked for, and where.
        """
        return DataError(f"{self.name}: {problem}.", hint=f"get it from {self.where} ({self.terms}) and give its path.")

    def lacks(self, row: Row) -> str | None:
        """The first column that a row should have and does not; None: it is a row of this benchmark.

        Args:
            row: As read.
        """
        return next((names[0] for names in self.columns if not any(name in row for name in names)), None)


def located(path: str, source: Source) -> Path:
    """A file or folder on this machine; the name of a dataset on the hub is downloaded, or taken from its cache.

    Args:
        path: Path, or ``owner/name``.
        source: Of the benchmark.

    Raises:
        DataError: There is no such file or folder, and no such dataset, or it is gated.
    """
    local = Path(path)
    if local.exists():
        return local
    if not _HUB_NAME.fullmatch(path):
        raise source.missing(f"there is no {path}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, repo_type="dataset"))
    except (OSError, ValueError) as error:  # not found, gated and offline are all errors of one of these kinds
        reason = str(error).strip().splitlines()[0]
        raise source.missing(f"there is no {path} here, and the hub did not give it ({reason})") from error


def files_of(folder: Path, patterns: Sequence[str], source: Source) -> list[Path]:
    """What matches the first of some patterns that anything matches: one file, or all shards of one, in their order.

    Args:
        folder: Of the benchmark; or one of its files, which is taken as it is.
        patterns: Below the folder.
        source: Of the benchmark.

    Raises:
        DataError: There is none, there are several, or a shard is missing.
    """
    if folder.is_file():
        return [folder]
    found = next((files for pattern in patterns if (files := sorted(folder.glob(pattern)))), [])
    if not found:
        raise source.missing(f"{folder} has no {' or '.join(patterns)}")
    names = [str(path.relative_to(folder)) for path in found]
    if shard := _SHARD.fullmatch(names[0]):
        stem, _, count, end = shard.groups()
        wanted = [f"{stem}-{number:05}-of-{count}{end}" for number in range(int(count))]
        if missing := [name for name in wanted if name not in names]:
            raise source.missing(f"{folder} has {names[0]}, but no {' and no '.join(missing)}")
    else:
        wanted = names[:1]
    if names != wanted:
        raise DataError(f"{source.name}: {folder} has {' and '.join(names)}.", hint="give the path of one of them.")
    return found


def read_rows(paths: Sequence[Path], source: Source) -> list[Row]:
    """All rows of a benchmark's files, in their order.

    Args:
        paths: ``.parquet``, ``.csv``, or a list of rows as JSON, or JSON lines, whatever such a file is called.
        source: The benchmark that they should be of.

    Raises:
        DataError: One cannot be read, holds no rows, or has a row of another layout.
    """
    return [row for path in paths for row in _read(path, source)]


def _read(path: Path, source: Source) -> list[Row]:
    reader = {".parquet": _parquet, ".csv": _csv}.get(path.suffix, _json)
    try:
        rows = list(reader(path))
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}.", hint="get it again: it may be cut off.") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{path}, row {number} is {row!r}, not an object.", hint="get the file again.")
        if (column := source.lacks(row)) is not None:
            raise DataError(
                f"{path} is no file of {source.name}: row {number} has no {column!r}; it has {sorted(map(str, row))}.",
                hint=f"give a file of {source.name}, or the class of the benchmark that this one is of.",
            )
    if not rows:
        raise DataError(f"{path} holds no rows.", hint="get the file again; it may be cut off.")
    return rows


def text_of(row: Row, *names: str, default: str | None = None) -> str:
    """A text or number of a row, under the first of its spellings that is there.

    Args:
        row: Of ``read_rows``.
        names: Spellings of the column.
        default: Where there is none of them, or it is null; None: it must be there.

    Raises:
        DataError: It is missing, or no text.
    """
    value = next((row[name] for name in names if row.get(name) is not None), default)
    if isinstance(value, str | int | float):
        return encodable(str(value))
    raise DataError(
        f"a row has {names[0]} = {value!r}; it has {sorted(map(str, row))}.", hint="is it the file of this benchmark?"
    )


def _parquet(path: Path) -> Iterator[Row]:
    yield from pq.read_table(path, partitioning=None).to_pylist()


def _csv(path: Path) -> Iterator[Row]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, strict=True)


def _json(path: Path) -> Iterator[Row]:
    """A list of rows, or a row a line: only a list begins with a bracket."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        yield from json.loads(text)
    else:
        yield from (json.loads(line) for line in text.split("\n") if line.strip())
