"""HeldOut: the groups of one validation or test run, whole, for callbacks that write them down."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from mgrpo_lightning.records.trajectory import Group


class HeldOut(Callback):
    """Collects what is played, and hands it on when all of it is there."""

    def __init__(self) -> None:
        self._groups: list[Group] = []

    def on_held_out(self, trainer: Trainer, groups: list[Group]) -> None:
        """What to do with them.

        Args:
            trainer: The run.
            groups: Of this rank; at least one.
        """
        raise NotImplementedError

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._groups.extend(batch)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups, self._groups = self._groups, []
        if groups:
            self.on_held_out(trainer, groups)

    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end
