"""Segments: the immutable files of a store, each a run of one writer's records as an Arrow file.

``0000000120-0000000163-5e1c0b3a.arrow`` stands for records 120 to 163 of its writer's incarnation. The last part is the
CRC-32 of all bytes: a file is read whole and right, or not at all. Arrow takes a fraction of Parquet's time for a file
of a few records, of which most are.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.record import SCHEMA, Record, from_row, to_batch

VERSION = "2"
"""Of the schema; stands in each file's metadata as ``mgrpo_store``."""
LARGEST = 2**28
"""Bytes of a segment above which it is not read; it takes no more in memory, as nothing in it is compressed."""
_NAME = re.compile(r"(\d{10})-(\d{10})-([0-9a-f]{8})\.arrow")


class Segment(NamedTuple):
    """What the name of a file says."""

    first: int
    """Sequence number of its first record."""
    last: int
    """Of its last one."""
    crc: str
    """CRC-32 of its bytes, in hex."""

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.first:010d}-{self.last:010d}-{self.crc}.arrow"


class Unreadable(Exception):
    """A segment that is torn, damaged, or not yet there in full."""


def segments(disk: Disk, folder: Path) -> list[Segment]:
    """What is in a writer's folder, in order; where two begin alike, the longer one first.

    Args:
        disk: To list with.
        folder: Of one incarnation.
    """
    matches = filter(None, map(_NAME.fullmatch, disk.names(folder)))
    found = [Segment(int(match[1]), int(match[2]), match[3]) for match in matches]
    return sorted((one for one in found if one.first <= one.last), key=lambda one: (one.first, -one.last))


def write_segment(disk: Disk, folder: Path, numbered: Mapping[int, Record]) -> Segment:
    """Write records as one segment, durably.

    Args:
        disk: To write with.
        folder: Of one incarnation.
        numbered: Records by sequence number, ascending.

    Raises:
        OSError: It could not be written.
        DataError: It would be larger than what is read.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA.with_metadata({"mgrpo_store": VERSION})) as file:
        file.write_batch(to_batch(numbered))
    data = sink.getvalue().to_pybytes()
    first, last = min(numbered), max(numbered)
    if len(data) > LARGEST:
        raise DataError(
            f"records {first} to {last} for {folder} take {len(data)} bytes, more than {LARGEST}.",
            hint="bound what one agent says with limits.new_tokens.",
        )
    segment = Segment(first, last, f"{zlib.crc32(data):08x}")
    disk.write(folder / segment.name, data)
    return segment


def read_segment(disk: Disk, folder: Path, segment: Segment) -> dict[int, Record]:
    """The records of a segment by sequence number, ascending.

    Args:
        disk: To read with.
        folder: Of one incarnation.
        segment: Which.

    Raises:
        Unreadable: It is torn, damaged, or not there; it may be in a while.
        DataError: It is of another version, larger than ``LARGEST``, or no regular file.
    """
    path = folder / segment.name
    try:
        data = disk.read(path, LARGEST)
        if zlib.crc32(data) != int(segment.crc, 16):
            raise Unreadable(f"{path}: its bytes are not those that its name says")
        file = pa.ipc.open_file(pa.BufferReader(data))
        version = (file.schema.metadata or {}).get(b"mgrpo_store", b"none").decode("utf-8", "replace")
        if version != VERSION:
            raise DataError(
                f"{path} has store version {version}; this package reads version {VERSION}.",
                hint="read it with the package that wrote it.",
            )
        table = file.read_all()
        table.validate(full=True)  # offsets out of bounds would be read
        rows = table.select(SCHEMA.names).to_pylist()
        numbered = {row["sequence"]: from_row(row) for row in rows}
    except (DataError, Unreadable):
        raise
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise Unreadable(f"{path}: {' '.join(str(error).split())}") from error
    numbers = list(numbered)
    if (
        len(numbers) < len(rows)
        or numbers != sorted(numbers)
        or not all(segment.first <= n <= segment.last for n in numbers)
    ):
        raise Unreadable(f"{path}: its records have other numbers than its name says")
    return numbered
