"""HeldOut: base class of callbacks that need all groups of a validation or test run at once."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from mgrpo_lightning.records.trajectory import Group


class HeldOut(Callback):
    """Collects the groups of each batch and passes all of them to ``on_held_out`` at the end."""

    def __init__(self) -> None:
        self._groups: list[Group] = []

    def on_held_out(self, trainer: Trainer, groups: list[Group]) -> None:
        """Handle the groups of a whole validation or test run; subclasses override this.

        Args:
            trainer: Trainer of the run.
            groups: All groups that this rank has played, at least one.
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
        self._groups.extend(batch.groups)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups, self._groups = self._groups, []  # reset, because a fit validates again with the same callback
        if groups:
            self.on_held_out(trainer, groups)

    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end
