"""TeamCheckpoint: save the checkpoint of a step only after the validation that follows the step."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override


class TeamCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint; if a validation follows a step, it saves after the validation.

    Lightning saves before the validation, and a run resumed from there skips the validation. A run killed in its last
    validation would then never report its result. In a decoupled run, the other roles would wait forever for the
    killed role's validation. Here, a run that is killed in a validation repeats the step before it. The arguments are
    those of ``ModelCheckpoint``.
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
    """Whether the trainer validates between the step that has just ended and the next one.

    Args:
        trainer: Trainer of a fit, inside the hook ``on_train_batch_end``.
    """
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    # Private API: Lightning decides with this method, and has no public one.
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
