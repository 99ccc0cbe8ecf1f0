"""Find a benchmark's files (shards) in a folder or on the hub; read rows of Parquet, CSV, JSON or JSON Lines."""

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

DatasetRow = Mapping[str, Any]
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
"""File name of a shard of a split on the hub, such as ``train-00000-of-00002.parquet``; shards count from 0."""


@dataclass(frozen=True)
class Source:
    """Name, origin, terms and columns of a benchmark, for error messages and checks."""

    name: str
    where: str
    """Repository or URL to get the benchmark from."""
    terms: str
    """Licence or terms of use."""
    columns: Sequence[Sequence[str]]
    """Columns that every row must have; each entry lists the accepted spellings of one column."""

    def missing(self, problem: str) -> DataError:
        """Make the error for a missing benchmark, with a hint where to get it.

        Args:
            problem: Text that says what is missing, and where.
        """
        return DataError(
            f"{self.name}: {problem}.", hint=f"download it from {self.where} ({self.terms}) and give its path."
        )

    def lacks(self, row: DatasetRow) -> str | None:
        """Return the first required column that a row lacks; None if it has all.

        Args:
            row: Row of a file, by column name.
        """
        return next((names[0] for names in self.columns if not any(name in row for name in names)), None)


def located(path: str, source: Source) -> Path:
    """Return a local file or folder; the name of a dataset on the hub is downloaded, or taken from the hub's cache.

    Args:
        path: Local path, or ``owner/name`` of a dataset on the hub. A local path wins.
        source: The benchmark, for the error message.

    Raises:
        DataError: The path does not exist, and the dataset does not exist, is gated, or cannot be downloaded.
    """
    local = Path(path)
    if local.exists():
        return local
    if not _HUB_NAME.fullmatch(path):
        raise source.missing(f"{path} does not exist")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, repo_type="dataset"))
    except (OSError, ValueError) as error:  # the hub's errors for not found, gated and offline are subclasses of these
        reason = str(error).strip().splitlines()[0]
        raise source.missing(f"{path} does not exist, and the hub did not provide it ({reason})") from error


def files_of(folder: Path, patterns: Sequence[str], source: Source) -> list[Path]:
    """Return the files of the first pattern with a match: one file, or all shards of a split, in order.

    Args:
        folder: Folder of the benchmark; a path of a file is returned as it is.
        patterns: Glob patterns relative to the folder, in order of preference.
        source: The benchmark, for error messages.

    Raises:
        DataError: No file matches, several files match, or a shard is missing.
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
        raise DataError(
            f"{source.name}: {folder} has several files of rows: {' and '.join(names)}.",
            hint="give the path of one of them.",
        )
    return found


def read_rows(paths: Sequence[Path], source: Source) -> list[DatasetRow]:
    """Read all rows of a benchmark's files, in order.

    Args:
        paths: ``.parquet`` files, ``.csv`` files, or files with any other ending that hold a JSON list or JSON Lines.
        source: The benchmark; each row must have its columns.

    Raises:
        DataError: A file cannot be read, holds no rows, or has a row without a required column.
    """
    return [row for path in paths for row in _read(path, source)]


def _read(path: Path, source: Source) -> list[DatasetRow]:
    reader = {".parquet": _parquet, ".csv": _csv}.get(path.suffix, _json)
    try:
        rows = list(reader(path))
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}.", hint="download it again: it may be incomplete.") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{path}, row {number} is {row!r}, not an object.", hint="download the file again.")
        if (column := source.lacks(row)) is not None:
            raise DataError(
                f"{path} is not a file of {source.name}: row {number} has no {column!r}, but {sorted(map(str, row))}.",
                hint=f"give a file of {source.name}, or use the class of the benchmark that this file belongs to.",
            )
    if not rows:
        raise DataError(f"{path} has no rows.", hint="download the file again: it may be incomplete.")
    return rows


def text_of(row: DatasetRow, *names: str, default: str | None = None) -> str:
    """Return a text or number of a row as text, from the first column name that exists.

    Args:
        names: Accepted spellings of the column.
        default: Value if the column is missing or null; None makes that an error.

    Raises:
        DataError: The value is missing, or is neither a text nor a number.
    """
    value = next((row[name] for name in names if row.get(name) is not None), default)
    if isinstance(value, str | int | float):
        return encodable(str(value))
    raise DataError(
        f"a row has {names[0]} = {value!r}; it has {sorted(map(str, row))}.", hint="give a file of this benchmark."
    )


def _parquet(path: Path) -> Iterator[DatasetRow]:
    # partitioning=None: else PyArrow adds a column for a parent folder whose name looks like key=value.
    yield from pq.read_table(path, partitioning=None).to_pylist()


def _csv(path: Path) -> Iterator[DatasetRow]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, strict=True)


def _json(path: Path) -> Iterator[DatasetRow]:
    """Read a JSON list of rows, or JSON Lines; a file that starts with a bracket is a list."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        yield from json.loads(text)
    else:
        yield from (json.loads(line) for line in text.split("\n") if line.strip())
