"""OneWriter: the one run of a process holds the lock of its folder while it writes there, and stops if it loses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from mgrpo_lightning.persistence.run_lock import RunLock
from mgrpo_lightning.process.one_run import begin_run, end_run


class OneWriter(Callback):
    """One ``fit`` a run folder, and one ``validate`` and one ``test``; rank zero holds the lock for all ranks.

    A process has one run at a time (``process/one_run.py``).

    It stands before the callbacks that write. ``take`` may be called before Lightning calls anything, by whoever looks
    for a checkpoint first.
    """

    def __init__(self) -> None:
        self._lock: RunLock | None = None
        self._in_use = False

    def take(self, trainer: Trainer, command: str) -> None:
        """Take the lock.

        Args:
            trainer: Whose folder it is.
            command: fit, validate, test, or predict, which writes nothing and needs none.

        Raises:
            ConfigurationError: Another process has it.
        """
        if not trainer.is_global_zero or command == "predict":
            return
        self._lock = self._lock or RunLock(Path(trainer.default_root_dir), command)
        self._lock.take()

    def release(self) -> None:
        """Give back one ``take``; without one nothing happens."""
        if self._lock is not None:
            self._lock.release()
            if not self._lock.taken:
                self._lock = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        begin_run()
        self._in_use = True
        self.take(trainer, TrainerFn(stage).value)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._done()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._done()

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._check()  # before the journal

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._check()

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check()

    def on_play_end(self, **_: Any) -> None:
        """Before what was played is written.

        Args:
            **_: What was played, and for what.
        """
        self._check()

    def _check(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _done(self) -> None:
        if self._in_use:
            self._in_use = False
            self.release()
            end_run()
