"""Ledger: records read from a store, in memory by kind, stage and step; a later record replaces an earlier one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from mgrpo_lightning.store.record import Kind, Record


class Ledger:
    """Records by kind, stage and step."""

    def __init__(self) -> None:
        self._records: defaultdict[tuple[str, str, int], dict[object, Record]] = defaultdict(dict)

    def add(self, records: Iterable[Record]) -> None:
        """Add records in the order in which their writer published them.

        Args:
            records: A later record replaces an earlier one of the same place.
        """
        for record in records:
            self._records[record.kind, record.stage, record.key.step][record.place] = record

    def find(self, kind: Kind, stage: str, step: int) -> list[Record]:
        """Return the latest records of one step.

        Args:
            stage: train, validate or predict.
        """
        return list(self._records.get((kind, stage, step), {}).values())

    def forget(self, before: int) -> None:
        """Drop the records of old steps, except member records.

        Args:
            before: First training step to keep.
        """
        for name in [name for name in self._records if name[0] != "members" and name[2] < before]:
            del self._records[name]
