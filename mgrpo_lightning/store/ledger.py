"""Ledger: of all that was read, what counts: for each place its last record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from mgrpo_lightning.store.record import Record, Stream


class Ledger:
    """Records by stream, stage and step."""

    def __init__(self) -> None:
        self._records: defaultdict[tuple[str, str, int], dict[object, Record]] = defaultdict(dict)

    def add(self, records: Iterable[Record]) -> None:
        """Take what was read, in the order of its writer.

        Args:
            records: Later ones take the place of earlier ones.
        """
        for record in records:
            self._records[record.stream, record.stage, record.key.step][record.place] = record

    def find(self, stream: Stream, stage: str, step: int) -> list[Record]:
        """What counts of a step.

        Args:
            stream: Which records.
            stage: What is played for.
            step: Of their keys.
        """
        return list(self._records.get((stream, stage, step), {}).values())

    def forget(self, before: int) -> None:
        """Drop what belongs to old steps.

        Args:
            before: Training step from which on everything is kept.
        """
        for name in [name for name in self._records if name[0] != "members" and name[2] < before]:
            del self._records[name]
