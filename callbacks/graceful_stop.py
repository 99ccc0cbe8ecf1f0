"""GracefulStop: ends a run where it can go on later, when a file asks for it, or SIGTERM one of its ranks."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from typing_extensions import override

from mgrpo_lightning.callbacks.team_checkpoint import validation_follows
from mgrpo_lightning.checkpointing import FILENAME
from mgrpo_lightning.errors import RunStopped
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.layout import STOP


class GracefulStop(Callback):
    """Looks for the file at the start and after every step; if it is there, saves and raises ``RunStopped``.

    Lightning answers SIGTERM with a collective inside of the signal's handler, in which several ranks wait for each
    other for ever. With several, a signal is noted here and counts like the file; where nothing is saved, it ends the
    rank at once.

    Where a validation follows the step it does not wait for that, nor save: resumed, the run does this step again, and
    then the validation (see ``TeamCheckpoint``).

    Args:
        path: The file; None is ``stop`` in the folder of the whole run.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._disk = Disk()
        self._terminated = False

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self._hear(trainer, at_once=True)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hear(trainer, at_once=True)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._disk.exists(path := self._file(trainer)):
            raise RunStopped(f"{path} asks this run to stop before it begins.", hint="remove the file to go on.")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hear(trainer, at_once=False)  # here, as Lightning's own handler comes behind on_fit_start

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._asked(trainer):
            self._stop(trainer, save=not validation_follows(trainer))

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        behind_a_step = trainer.state.stage == RunningStage.VALIDATING and trainer.state.fn == TrainerFn.FITTING
        if behind_a_step and self._asked(trainer):
            self._stop(trainer, save=True)

    def _asked(self, trainer: Trainer) -> bool:
        # any rank that sees the file stops all, as the file may reach them at different times
        asked = self._terminated or self._disk.exists(self._file(trainer))
        return trainer.strategy.reduce_boolean_decision(asked, all=False)

    def _hear(self, trainer: Trainer, *, at_once: bool) -> None:
        """Take SIGTERM in Lightning's place; it restores what was there before when the command ends."""
        if trainer.world_size == 1 or threading.current_thread() is not threading.main_thread():
            return
        self._terminated = False

        def note(signum: int, frame: object) -> None:
            launcher = trainer.strategy.launcher
            if launcher is not None and not self._terminated:
                launcher.kill(signal.Signals(signum))  # the ranks that this one has started
            self._terminated = True
            if at_once:
                raise SIGTERMException

        signal.signal(signal.SIGTERM, note)

    def _stop(self, trainer: Trainer, *, save: bool) -> NoReturn:
        saver = trainer.checkpoint_callback
        if save and isinstance(saver, ModelCheckpoint) and saver.dirpath is not None:
            trainer.save_checkpoint(Path(saver.dirpath) / f"{FILENAME.format(step=trainer.global_step)}.ckpt")
        place = "behind" if save else "before the validation behind"
        path = self._file(trainer)
        who, first = (path, "remove the file and ") if self._disk.exists(path) else ("SIGTERM", "")
        raise RunStopped(
            f"stopped {place} step {trainer.global_step} of {trainer.max_steps}, as {who} asks.",
            hint=f"{first}go on with --ckpt_path=last.",
        )

    def _file(self, trainer: Trainer) -> Path:
        store = trainer.datamodule.store  # type: ignore[attr-defined]
        return Path(self.path or (store.parent if store else Path(trainer.default_root_dir)) / STOP)
