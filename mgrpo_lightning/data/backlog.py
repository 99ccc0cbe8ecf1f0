"""Backlog: aligned batches of roles whose updates come some steps after their play."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mgrpo_lightning.data.batch import AlignedBatch


class Backlog:
    """What waits for its update.

    Args:
        lags: Steps between play and update, of each role with a lag.
        again: Aligns what was played in an earlier step once more, for a run that has been resumed since.
    """

    def __init__(self, lags: Mapping[str, int], again: Callable[[int], Mapping[str, AlignedBatch]]) -> None:
        self._lags = lags
        self._again = again
        self._waiting: dict[int, Mapping[str, AlignedBatch]] = {}

    def due(self, step: int) -> dict[str, AlignedBatch]:
        """What roles with a lag train on in a step, which is known before that is played; nothing in the first steps.

        Args:
            step: Of training.
        """
        return {role: self._of(role, step - lag) for role, lag in self._lags.items()}

    def add(self, step: int, played: Mapping[str, AlignedBatch]) -> None:
        """Keep what was played, and drop what everybody has trained on.

        Args:
            step: Of training.
            played: Every role's batch.
        """
        if self._lags:
            self._waiting[step] = played
            self._waiting = {old: kept for old, kept in self._waiting.items() if old > step - max(self._lags.values())}

    def _of(self, role: str, step: int) -> AlignedBatch:
        if step < 0:
            return AlignedBatch(role, [])
        if step not in self._waiting:
            self._waiting[step] = self._again(step)
        return self._waiting[step][role]
