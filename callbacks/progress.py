"""TeamProgress: progress bars of the training steps and of the rollouts in play; print a line after each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from typing_extensions import override

from mgrpo_lightning.callbacks.step_line import step_line, validation_line
from mgrpo_lightning.records.trajectory import Group

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule

PLAYING = {"train": "playing", "validate": "held-out questions", "predict": "answering"}


class TeamProgress(ProgressBar):
    """Replaces Lightning's bar. Without a terminal (a file, a SLURM log), it prints only the lines.

    ``on_play_start``, ``on_play_advance`` and ``on_play_end`` are hooks of this package: the data module calls them
    around each rollout phase, on every callback that has them.

    Args:
        enabled: Whether to print anything.
    """

    def __init__(self, enabled: bool = True) -> None:
        super().__init__()
        self._enabled = enabled
        self._console = Console()
        self._bars: Progress | None = None
        self._run: TaskID | None = None
        self._phase: TaskID | None = None

    @override
    def disable(self) -> None:
        self._enabled = False
        self._close()

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def print(self, *args: Any, **kwargs: Any) -> None:
        if self._enabled:
            # soft_wrap: one line a step in a log file too, where rich guesses a width of 80.
            self._console.print(*args, markup=False, highlight=False, soft_wrap=True)

    def on_play_start(self, total: int, stage: Literal["train", "validate", "predict"]) -> None:
        """Show the bar of a rollout phase.

        Args:
            total: Number of rollouts in this phase.
            stage: Purpose of the rollouts.
        """
        if bars := self._open():
            self._phase = bars.add_task(PLAYING[stage], total=total)

    def on_play_advance(self) -> None:
        """Advance the bar by one finished rollout."""
        if self._bars and self._phase is not None:
            self._bars.advance(self._phase)

    def on_play_end(self, groups: Sequence[Group], stage: Literal["train", "validate", "predict"], step: int) -> None:
        """Hide the bar of the rollout phase.

        Args:
            groups: The groups of this phase.
            stage: Purpose of the rollouts.
            step: Number of training steps done so far.
        """
        if self._bars and self._phase is not None:
            self._bars.remove_task(self._phase)
            self._phase = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if bars := self._open():
            self._run = bars.add_task("training", total=_total(trainer), completed=trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bars and self._run is not None:
            self._bars.update(self._run, completed=trainer.global_step)
        module = cast("TeamModule", pl_module)
        roles = {name: module.roles[name] for name in module.local_roles}
        self.print(step_line(trainer.global_step, _total(trainer), module.metrics, roles))

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._console.is_terminal:  # without a bar, a log file would show nothing for minutes
            self.print(f"validating on the held-out questions at step {trainer.global_step} ...")

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.print(validation_line(cast("TeamModule", pl_module).validation_results[-1]))
        if trainer.state.fn != TrainerFn.FITTING:
            self._close()

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_end(trainer, pl_module)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _open(self) -> Progress | None:
        if self._enabled and self._bars is None and self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bars = Progress(*columns, console=self._console, transient=True)  # bars vanish, printed lines stay
            self._bars.start()
        return self._bars

    def _close(self) -> None:
        if self._bars:
            self._bars.stop()
        self._bars = self._run = self._phase = None


def _total(trainer: Trainer) -> int | None:
    return trainer.max_steps if trainer.max_steps > 0 else None
