"""Read Parquet tables and metadata with checksums and types; an error names the file and the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mgrpo_lightning.errors import DataError


def read_metadata(path: Path) -> Mapping[bytes, bytes]:
    """Return the key-value metadata of a Parquet file.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        return pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of a Parquet file, with the types of a schema and with checksums and validation.

    Args:
        schema: The expected columns; the file may have more.
        columns: Names of the columns to read; None: all columns of the schema.

    Returns:
        The columns, in the order of ``columns``.

    Raises:
        DataError: The file is missing or damaged, or a column is missing, has another type or is not UTF-8.
    """
    names = schema.names if columns is None else list(columns)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if lacking := [name for name in names if name not in file.schema_arrow.names]:
                raise DataError(f"{path} has no column {', '.join(lacking)}.", hint=_HINT)
            found = file.read(names).select(names).cast(pa.schema([schema.field(name) for name in names]))
        found.validate(full=True)  # Arrow itself accepts text that is not UTF-8
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return found


_HINT = "restore the file from a copy: it was damaged after it was written, or another program wrote it."


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()).rstrip(".")
    return DataError(f"{path} cannot be read: {reason}.", hint=_HINT)
