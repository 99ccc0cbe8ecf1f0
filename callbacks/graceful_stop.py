"""GracefulStop: at a stop file or signal, finish the step, save a checkpoint, and raise ``RunStopped``; resumable."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from typing_extensions import override

from mgrpo_lightning.callbacks.team_checkpoint import validation_follows
from mgrpo_lightning.errors import RunStopped
from mgrpo_lightning.persistence.checkpoints import FILENAME
from mgrpo_lightning.process.stopping import Stopping
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.layout import STOP


class GracefulStop(Callback):
    """Checks for the stop file at the start and after every step; if it exists, saves and raises ``RunStopped``.

    During a fit, a signal works like the file: the current step may finish within a grace period (see ``Stopping``).
    Other commands save nothing, so a signal interrupts them at once. This class replaces Lightning's SIGTERM handler,
    which runs a collective operation inside the handler; with several ranks, that can deadlock. A program other than
    the command ``mgrpo`` keeps its own handlers, except SIGTERM's when there are several ranks.

    If a validation follows the step, the run stops before it, without saving. When resumed, the run repeats the step
    and then validates (see ``TeamCheckpoint``).

    Args:
        path: Path of the stop file; None is ``stop`` in the folder of the whole run.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._disk = Disk()
        self._signals = Stopping()

    @override
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hear(trainer, patient=False)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self._hear(trainer, patient=False)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hear(trainer, patient=False)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hear(trainer, patient=False)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._disk.exists(path := self._file(trainer)):
            raise RunStopped(f"{path} stops this run before it starts.", hint="remove the file, and start again.")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hear(trainer, patient=True)  # not in on_fit_start: Lightning installs its own handler after that

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._signals.patient = False

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._signals.patient = False

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
        # One rank is enough to stop all: on a shared filesystem, ranks may see the file at different times.
        asked = self._signals.asked is not None or self._disk.exists(self._file(trainer))
        return trainer.strategy.reduce_boolean_decision(asked, all=False)

    def _hear(self, trainer: Trainer, *, patient: bool) -> None:
        """Replace Lightning's signal handlers; Lightning restores the earlier ones when the command ends."""
        command = Stopping.current
        alone = command is None and trainer.world_size == 1
        # Python allows signal handlers only in the main thread.
        if alone or threading.current_thread() is not threading.main_thread():
            return
        self._signals = command or Stopping()
        self._signals.patient = patient
        if (launcher := trainer.strategy.launcher) is not None:
            self._signals.forward = launcher.kill  # forwards a signal to the ranks that this process has started
        self._signals.listen(signal.SIGTERM)

    def _stop(self, trainer: Trainer, *, save: bool) -> NoReturn:
        saver = trainer.checkpoint_callback
        if save and isinstance(saver, ModelCheckpoint) and saver.dirpath is not None:
            trainer.save_checkpoint(Path(saver.dirpath) / f"{FILENAME.format(step=trainer.global_step)}.ckpt")
        place = "after" if save else "before the validation after"
        path = self._file(trainer)
        asked = self._signals.asked or signal.SIGTERM  # None here if another rank received the signal
        who, first = (path, "remove the file, and ") if self._disk.exists(path) else (asked.name, "")
        raise RunStopped(
            f"stopped {place} step {trainer.global_step} of {trainer.max_steps}, because of {who}.",
            hint=f"{first}resume with --ckpt_path=last.",
        )

    def _file(self, trainer: Trainer) -> Path:
        store = trainer.datamodule.store  # type: ignore[attr-defined]
        return Path(self.path or (store.parent if store else Path(trainer.default_root_dir)) / STOP)
