"""TeamCheckpoint: a checkpoint holds its step whole, the validation behind it included."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override


class TeamCheckpoint(ModelCheckpoint):
    """Lightning's checkpoints; behind a step that is followed by a validation they wait for its end.

    Lightning saves before the validation, and a run that is resumed from there skips it: a run that was killed in its
    last one would never say what it has learned, and a role whose process was killed would leave the others waiting for
    it in theirs. So a run that is killed in a validation does the step before it again. Takes what ``ModelCheckpoint``
    takes.
    """

    _waiting: tuple[Any, Any, int] | None = None

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if validation_follows(trainer):
            self._waiting = outputs, batch, batch_idx
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            super().on_train_batch_end(trainer, pl_module, *waiting)


def validation_follows(trainer: Trainer) -> bool:
    """Whether the trainer validates between the step that has just ended and the next; asked in ``on_train_batch_end``.

    Args:
        trainer: In a fit.
    """
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # what decides it; there is no public name for it
