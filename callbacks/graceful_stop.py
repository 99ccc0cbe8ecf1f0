"""GracefulStop: ends a run where it can go on later, when a file asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override

from mgrpo_lightning.checkpointing import FILENAME
from mgrpo_lightning.errors import RunStopped
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.layout import STOP


class GracefulStop(Callback):
    """Looks for the file at the start and after every step; if it is there, saves and raises ``RunStopped``.

    Args:
        path: The file; None is ``stop`` in the folder of the whole run.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._disk = Disk()

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._disk.exists(path := self._file(trainer)):
            raise RunStopped(f"{path} asks this run to stop before it begins.", hint="remove the file to go on.")

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # any rank that sees the file stops all, as the file may reach them at different times
        if not trainer.strategy.reduce_boolean_decision(self._disk.exists(self._file(trainer)), all=False):
            return
        saver = trainer.checkpoint_callback
        if isinstance(saver, ModelCheckpoint) and saver.dirpath is not None:
            trainer.save_checkpoint(Path(saver.dirpath) / f"{FILENAME.format(step=trainer.global_step)}.ckpt")
        raise RunStopped(
            f"stopped behind step {trainer.global_step} of {trainer.max_steps}, as {self._file(trainer)} asks.",
            hint="remove the file and go on with --ckpt_path=last.",
        )

    def _file(self, trainer: Trainer) -> Path:
        store = trainer.datamodule.store  # type: ignore[attr-defined]
        return Path(self.path or (store.parent if store else Path(trainer.default_root_dir)) / STOP)
