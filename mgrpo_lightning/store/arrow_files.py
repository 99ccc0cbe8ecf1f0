"""Write, list and read the immutable Arrow files (segments) of a store; names hold record numbers and a CRC-32.

``0000000120-0000000163-5e1c0b3a.arrow`` holds records 120 to 163 of its writer's incarnation. The last part is the
CRC-32 of all bytes, so a reader accepts a file only if it is complete. Most files hold a few records only; for these,
Arrow takes a fraction of Parquet's time.
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

VERSION = "3"
"""Version of the schema, in each file's metadata as ``mgrpo_store``."""
LARGEST = 2**28
"""Maximum size of a segment in bytes. Segments are not compressed, so this also limits the memory for reading one."""
_NAME = re.compile(r"(\d{10})-(\d{10})-([0-9a-f]{8})\.arrow")


class Segment(NamedTuple):
    """The parts of a segment's file name."""

    first: int
    """Sequence number of its first record."""
    last: int
    """Sequence number of its last record."""
    crc: str
    """CRC-32 of its bytes, 8 hex digits."""

    @property
    def name(self) -> str:
        """The file name."""
        return f"{self.first:010d}-{self.last:010d}-{self.crc}.arrow"


class Unreadable(Exception):
    """A segment is torn, damaged, or not completely visible yet."""


def segments(disk: Disk, folder: Path) -> list[Segment]:
    """List the segments of an incarnation in order; of two with the same start, the longer one comes first.

    Args:
        folder: Folder of the incarnation.
    """
    matches = filter(None, map(_NAME.fullmatch, disk.names(folder)))
    found = [Segment(int(match[1]), int(match[2]), match[3]) for match in matches]
    # Longer first: a merged segment covers the small ones that are not removed yet.
    return sorted((one for one in found if one.first <= one.last), key=lambda one: (one.first, -one.last))


def write_segment(disk: Disk, folder: Path, numbered: Mapping[int, Record]) -> Segment:
    """Write records as one segment, durably.

    Args:
        folder: Folder of the incarnation.
        numbered: Records by sequence number, ascending.

    Raises:
        OSError: The write failed.
        DataError: The segment would be larger than ``LARGEST``.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA.with_metadata({"mgrpo_store": VERSION})) as file:
        file.write_batch(to_batch(numbered))
    data = sink.getvalue().to_pybytes()
    first, last = min(numbered), max(numbered)
    if len(data) > LARGEST:
        raise DataError(
            f"records {first} to {last} for {folder} take {len(data)} bytes, more than {LARGEST}.",
            hint="lower limits.new_tokens.",
        )
    segment = Segment(first, last, f"{zlib.crc32(data):08x}")
    disk.write(folder / segment.name, data)
    return segment


def read_segment(disk: Disk, folder: Path, segment: Segment) -> dict[int, Record]:
    """Return the records of a segment by sequence number, ascending.

    Args:
        folder: Folder of the incarnation.
        segment: The segment to read.

    Raises:
        Unreadable: The file is torn, damaged or missing; a retry may succeed.
        DataError: It has another version, is larger than ``LARGEST``, or is not a regular file.
    """
    path = folder / segment.name
    try:
        data = disk.read(path, LARGEST)
        # Checked before Arrow parses the bytes: a network file system may show a file before all its data.
        if zlib.crc32(data) != int(segment.crc, 16):
            raise Unreadable(f"{path}: its content does not match the checksum in its name")
        file = pa.ipc.open_file(pa.BufferReader(data))
        version = (file.schema.metadata or {}).get(b"mgrpo_store", b"none").decode("utf-8", "replace")
        if version != VERSION:
            raise DataError(
                f"{path} has store version {version}; this package reads version {VERSION}.",
                hint="read it with the package that wrote it.",
            )
        table = file.read_all()
        table.validate(full=True)  # otherwise Arrow would follow offsets that are out of bounds
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
        raise Unreadable(f"{path}: its record numbers do not match its name")
    return numbered
