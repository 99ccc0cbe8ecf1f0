"""Tail: poll all writers' folders for new records, each once and in order; wait for files that have not arrived yet.

A poll lists the folders and reads only new segments. A segment may be listed but incomplete, or missing while a later
one is listed. Then it has not arrived yet, and the reader waits for it. It is an error only after a long timeout.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.store.arrow_files import Segment, Unreadable, read_segment, segments
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.layout import check_folder, incarnation_folder, incarnations, read_alive, writers
from mgrpo_lightning.store.record import Record

PATIENCE = 120.0
"""Timeout in seconds of a missing segment; network file systems cache names for up to a minute by default."""


@dataclass(frozen=True)
class Entry:
    """A record with its writer, incarnation and sequence number."""

    writer: str
    incarnation: int
    sequence: int
    record: Record


@dataclass
class _Cursor:
    """Position up to which a writer has been read."""

    incarnation: int = 0
    next: int = 0
    missing_since: float | None = None


class Tail:
    """A reader that continues at its last position.

    Args:
        root: Folder of the store; it must exist.
        patience: Timeout in seconds of a missing or torn segment.
        clock: Returns seconds; it is never compared with another machine's clock.

    Raises:
        DataError: The folder is not a store.
    """

    def __init__(
        self,
        root: Path,
        *,
        patience: float = PATIENCE,
        disk: Disk | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._disk = disk or Disk()
        check_folder(self._disk, root)
        self._root = root
        self._patience = patience
        self._clock = clock
        self._cursors: dict[str, _Cursor] = {}

    def poll(self) -> list[Entry]:
        """Read all new records.

        Raises:
            DataError: A segment has been missing or torn for longer than the timeout, or is not a segment of a store.
        """
        entries: list[Entry] = []
        for writer in self._writers():
            self._read(writer, entries)
        return entries

    def _writers(self) -> list[str]:
        try:
            # A listing may miss a writer that was seen before, so known writers are always read.
            return sorted({*self._cursors, *writers(self._disk, self._root)})
        except OSError:
            return sorted(self._cursors)

    def _read(self, writer: str, entries: list[Entry]) -> None:
        home = self._root / "writers" / writer
        cursor = self._cursors.setdefault(writer, _Cursor())
        try:
            self._renew(cursor, home)
            waits = self._segments(cursor, writer, home, entries) if cursor.incarnation else ""
        except OSError as error:
            waits = f"{home}: {error}"
        if not waits:
            cursor.missing_since = None
        elif cursor.missing_since is None:
            cursor.missing_since = self._clock()
        elif self._clock() - cursor.missing_since > self._patience:
            raise DataError(
                f"a part of the store has not arrived within {self._patience:.0f} s: {waits}",
                hint="see `mgrpo store RUN`; if the file is damaged, restart its role, which writes it again.",
            )

    def _renew(self, cursor: _Cursor, home: Path) -> None:
        """Move to the latest incarnation that is complete."""
        for number in reversed(incarnations(self._disk, home)):
            if number <= cursor.incarnation:
                return
            alive = read_alive(self._disk, incarnation_folder(home, number))
            # Without a heartbeat file the new incarnation still copies records, so the previous one stays valid.
            if alive is not None:
                cursor.incarnation, cursor.next = number, alive.start
                return

    def _segments(self, cursor: _Cursor, writer: str, home: Path, entries: list[Entry]) -> str:
        """Add new records; return what is missing, empty if nothing is known to be missing."""
        folder = incarnation_folder(home, cursor.incarnation)
        found = segments(self._disk, folder)
        behind = [segment for segment in found if segment.last >= cursor.next]
        for segment in behind:
            if segment.last < cursor.next:  # a merged segment has covered it
                continue
            # A gap: an earlier segment is not visible yet, or was removed on purpose.
            if segment.first > cursor.next and not self._removed(cursor, segment, folder):
                return f"{folder / segment.name} exists, but record {cursor.next} of that folder is missing"
            try:
                numbered = read_segment(self._disk, folder, segment)
            except Unreadable as error:
                return str(error)
            entries += [
                Entry(writer, cursor.incarnation, sequence, record)
                for sequence, record in numbered.items()
                if sequence >= cursor.next
            ]
            cursor.next = segment.last + 1
        return ""

    def _removed(self, cursor: _Cursor, segment: Segment, folder: Path) -> bool:
        """Whether the records between the cursor and a segment were removed on purpose."""
        alive = read_alive(self._disk, folder)
        return alive is not None and alive.start >= segment.first
