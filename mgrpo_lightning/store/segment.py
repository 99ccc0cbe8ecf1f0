"""Segments: the immutable files of a store, each a run of one writer's records as Parquet.

``0000000120-0000000163.parquet`` stands for records 120 to 163 of its writer's incarnation. Pages carry checksums,
records the hash of their content: a file is read whole and right, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.record import SCHEMA, Record, from_row, to_table

VERSION = "1"
"""Of the schema; stands in each file's metadata as ``mgrpo_store``."""
LARGEST = 2**28
"""Bytes of a segment, on the disk and in memory, above which it is not read."""
_NAME = re.compile(r"(\d{10})-(\d{10})\.parquet")


class Range(NamedTuple):
    """Sequence numbers of a segment's records, both included."""

    first: int
    last: int

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.first:010d}-{self.last:010d}.parquet"


class Unreadable(Exception):
    """A segment that is torn, damaged, or not yet there in full."""


def ranges(disk: Disk, folder: Path) -> list[Range]:
    """The segments in a writer's folder, in order; where two begin alike, the longer one first.

    Args:
        disk: To list with.
        folder: Of one incarnation.
    """
    found = [Range(*map(int, match.groups())) for name in disk.names(folder) if (match := _NAME.fullmatch(name))]
    return sorted((one for one in found if one.first <= one.last), key=lambda one: (one.first, -one.last))


def write_segment(disk: Disk, folder: Path, named: Range, numbered: Mapping[int, Record]) -> None:
    """Write records as one segment, durably.

    Args:
        disk: To write with.
        folder: Of one incarnation.
        named: The sequence numbers it stands for; a number without a record is one that nobody needs any more.
        numbered: Records by sequence number, ascending.

    Raises:
        OSError: It could not be written.
    """
    sink = pa.BufferOutputStream()
    table = to_table(numbered).replace_schema_metadata({"mgrpo_store": VERSION})
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    disk.write(folder / named.name, sink.getvalue().to_pybytes())


def read_segment(disk: Disk, folder: Path, named: Range) -> dict[int, Record]:
    """The records of a segment by sequence number, ascending.

    Args:
        disk: To read with.
        folder: Of one incarnation.
        named: Which.

    Raises:
        Unreadable: It is torn, damaged, or not there; it may be in a while.
        DataError: It is of another version, larger than ``LARGEST``, or no regular file.
    """
    path = folder / named.name
    try:
        file = pq.ParquetFile(pa.BufferReader(disk.read(path, LARGEST)), page_checksum_verification=True)
        version = (file.schema_arrow.metadata or {}).get(b"mgrpo_store", b"none").decode("utf-8", "replace")
        if version != VERSION:
            raise DataError(
                f"{path} has store version {version}; this package reads version {VERSION}.",
                hint="read it with the package that wrote it.",
            )
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
        if size > LARGEST:
            raise DataError(f"{path} unpacks to {size} bytes, above {LARGEST}.", hint="see who wrote it.")
        rows = file.read(columns=SCHEMA.names, use_threads=False).to_pylist()
        numbered = {row["sequence"]: from_row(row) for row in rows}
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise Unreadable(f"{path}: {' '.join(str(error).split())}") from error
    numbers = list(numbered)
    if (
        len(numbers) < len(rows)
        or numbers != sorted(numbers)
        or not all(named.first <= n <= named.last for n in numbers)
    ):
        raise Unreadable(f"{path}: its records have other numbers than its name says")
    return numbered
