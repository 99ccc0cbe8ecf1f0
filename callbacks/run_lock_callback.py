"""RunLockCallback: take the ``RunLock`` of the run folder, check it before each write, release it at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from mgrpo_lightning.persistence.run_lock import RunLock
from mgrpo_lightning.process.one_run import begin_run, end_run


class RunLockCallback(Callback):
    """Allows one ``fit``, one ``validate`` and one ``test`` at a time in a run folder.

    Rank zero holds the lock for all ranks. A process has one run at a time (``process/one_run.py``).

    This callback must come before callbacks that write. The command calls ``take`` before it looks for a checkpoint,
    so earlier than Lightning's first hook.
    """

    def __init__(self) -> None:
        self._lock: RunLock | None = None
        self._in_use = False

    def take(self, trainer: Trainer, command: str) -> None:
        """Acquire the lock; each call needs one ``release``.

        Args:
            trainer: Trainer whose ``default_root_dir`` is locked.
            command: ``fit``, ``validate``, ``test`` or ``predict``; predict writes nothing and needs no lock.

        Raises:
            ConfigurationError: Another process holds the lock.
        """
        if not trainer.is_global_zero or command == "predict":
            return
        self._lock = self._lock or RunLock(Path(trainer.default_root_dir), command)
        self._lock.take()

    def release(self) -> None:
        """Undo one ``take``; without an earlier ``take``, do nothing."""
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
        self._check()  # before another callback writes the journal of this step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._check()

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check()

    def on_play_end(self, **_: Any) -> None:
        """Check the lock before the new rollouts are written."""
        self._check()

    def _check(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _done(self) -> None:
        # Both on_exception and teardown may be called; only the first call may release the lock.
        if self._in_use:
            self._in_use = False
            self.release()
            end_run()
