"""StoreWriter: claim an incarnation, recover and append records, send heartbeats; a superseded writer's writes fail.

On start, a process claims the next incarnation by making its folder, which only one process can do. It then copies the
latest valid record of each place from the previous incarnation. So a reader needs only the latest incarnation. If a
process that was declared dead still runs, its next write fails, and readers ignore it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.persistence.atomic import unwritten
from mgrpo_lightning.store.arrow_files import LARGEST, Segment, Unreadable, read_segment, segments, write_segment
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.layout import Alive, incarnation_folder, incarnations, open_folder, read_alive, writer_name
from mgrpo_lightning.store.record import Record

T = TypeVar("T")
CHUNK = 50_000
"""Maximum number of records in one segment."""
KEPT = "all published records are kept"


class StoreWriter:
    """One incarnation of a writer.

    Args:
        root: Folder of the store; created if missing.
        role: Name of the role.
        rank: Rank within the role.

    Raises:
        MgrpoError: The store cannot be written.
        DataError: The folder is not a store, or the role's name is not allowed as a folder name.
    """

    def __init__(
        self,
        root: Path,
        role: str,
        rank: int = 0,
        *,
        disk: Disk | None = None,
    ) -> None:
        self._disk = disk or Disk()
        self._home = root / "writers" / writer_name(role, rank)
        self._broken: OSError | None = None
        self._beating = threading.Lock()
        self._next = self._start = self._beats = 0
        self._loose: list[Segment] = []
        self._merged: dict[Segment, int] = {}
        try:
            open_folder(self._disk, root)
            self._disk.make(self._home)
            earlier = incarnations(self._disk, self._home)
            self.incarnation = max(earlier, default=0) + 1
            # Another process may take the number first; then mkdir fails here, and the next number is tried.
            while not self._disk.make(incarnation_folder(self._home, self.incarnation)):
                self.incarnation += 1
        except OSError as error:
            raise unwritten(error, self._home, KEPT) from error
        self.recovered = self._counting(earlier)
        """Records of the previous incarnation that still count, in order, one per place."""
        self.publish(self.recovered)
        # Recovered records may belong to steps after the next one to close, so they all close under the latest of them.
        self._close(max((record.key.step for record in self.recovered), default=0))
        self._announce({})

    @property
    def folder(self) -> Path:
        """Folder of this incarnation."""
        return incarnation_folder(self._home, self.incarnation)

    def publish(self, records: Sequence[Record]) -> None:
        """Append records durably and make them visible.

        If a call fails, it has published none or the first ones of the records. Then only a new writer can continue.

        Args:
            records: The records; an empty sequence does nothing.

        Raises:
            MgrpoError: The write failed, or another process has claimed a later incarnation.
        """
        if not records:
            return
        if self._broken is not None:
            raise unwritten(self._broken, self._home, KEPT)
        # A new incarnation may still appear between this check and the write; readers then ignore the write.
        if max(incarnations(self._disk, self._home), default=0) > self.incarnation:
            raise MgrpoError(
                f"{self._home.name} was started again while its incarnation {self.incarnation} still runs.",
                hint="run one process of each role and rank on a store, and end the others.",
            )
        for chunk in _chunks(dict(enumerate(records, self._next))):
            self._loose.append(self._guard(partial(self._write, chunk)))
            self._next = max(chunk) + 1

    def beat(self, **state: object) -> None:
        """Write the heartbeat file; if that fails, other roles see a missing heartbeat and nothing else happens.

        Args:
            **state: Values that JSON can hold, such as the step.
        """
        try:
            self._write_alive(state)
        except OSError:
            return

    def close_step(self, step: int, *, drop_before: int = 0) -> None:
        """Merge the segments since the last call into one, or into as few as fit, and remove old ones.

        Args:
            step: The finished step; the merged segments count as this step's.
            drop_before: Remove segments of steps below it, up to the first segment of a later step. A reader that has
                not read them yet skips them.

        Raises:
            MgrpoError: The write failed; no record is lost.
        """
        if len(self._loose) > 1:
            self._guard(self._merge)
        self._close(step)
        old = list(takewhile(lambda segment: self._merged[segment] < drop_before, self._merged))
        if old:
            self._start = old[-1].last + 1
            self._announce({})  # before the files are removed, or a reader would wait for them
            for segment in old:
                self._guard(partial(self._disk.remove, self.folder / segment.name))
                del self._merged[segment]

    def _write(self, numbered: Mapping[int, Record]) -> Segment:
        return write_segment(self._disk, self.folder, numbered)

    def _merge(self) -> None:
        numbered: dict[int, Record] = {}
        for segment in self._loose:
            numbered |= read_segment(self._disk, self.folder, segment)
        # The merged segments are durable before the small ones are removed. A reader between the two reads each record
        # once.
        whole = [self._write(chunk) for chunk in _chunks(numbered)]
        for segment in set(self._loose) - set(whole):
            self._disk.remove(self.folder / segment.name)
        self._loose = whole

    def _close(self, step: int) -> None:
        self._merged |= dict.fromkeys(self._loose, step)
        self._loose = []

    def _counting(self, numbers: Iterable[int]) -> list[Record]:
        """The records that still count in the last complete incarnation, up to the first record that cannot be read."""
        for number in sorted(numbers, reverse=True):
            folder = incarnation_folder(self._home, number)
            alive = read_alive(self._disk, folder)
            if alive is None:
                continue
            counting: dict[object, Record] = {}
            place = alive.start
            for segment in segments(self._disk, folder):
                if segment.last < place:
                    continue
                try:
                    found = read_segment(self._disk, folder, segment) if segment.first <= place else None
                except Unreadable:
                    found = None
                if found is None:
                    break
                for sequence, record in found.items():
                    if sequence >= place:
                        # Remove first, so that the replacement moves to the end and the order of publication is kept.
                        counting.pop(record.place, None)
                        counting[record.place] = record
                place = segment.last + 1
            return list(counting.values())
        return []

    def _announce(self, state: dict[str, object]) -> None:
        self._guard(partial(self._write_alive, state))

    def _write_alive(self, state: dict[str, object]) -> None:
        with self._beating:  # a heartbeat from another thread must not write an older start
            self._beats += 1
            self._disk.write(self.folder / Alive.NAME, Alive(self._beats, self._start, state).encode())

    def _guard(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except OSError as error:
            self._broken = error
            raise unwritten(error, self._home, KEPT) from error
        except Unreadable as error:
            raise MgrpoError(
                f"a segment of this process was damaged after it was written: {error}.",
                hint="resume the run: it writes the content of the segment again.",
            ) from error


def _chunks(numbered: Mapping[int, Record]) -> Iterator[dict[int, Record]]:
    """Split records into groups that fit one segment, with a margin for everything besides the texts."""
    chunk: dict[int, Record] = {}
    size = 0
    for sequence, record in numbered.items():
        larger = len((record.text or "").encode("utf-8", "surrogatepass")) + 100 * len(record.calls or ()) + 1000
        if chunk and (len(chunk) == CHUNK or size + larger > LARGEST):
            yield chunk
            chunk, size = {}, 0
        chunk[sequence] = record
        size += larger
    yield chunk
