"""ResumeLogs: open the resume log of a step or of held-out questions; remove it after its checkpoint or results."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from mgrpo_lightning.persistence.checkpoints import checkpoints
from mgrpo_lightning.persistence.resume_log import (
    FOLDER,
    ResumeLog,
    held_out_log_path,
    key_of,
    remove_closed,
    remove_if_empty,
    training_log_path,
)

if TYPE_CHECKING:
    from mgrpo_lightning.policy.policy import Policy

NOT_PLAYED = ("judge", "expert", "key_variable", "timeout", "attempts", "backoff", "concurrency", "cache")
"""Settings of a task that do not change what is played, so a run may resume after they changed."""


@dataclass(frozen=True)
class ResumeLogs:
    """The resume logs of one command. A killed command that is repeated takes up the finished turns of its logs.

    The ``rounds`` schedule keeps no logs, because it plays the same turns again. A run without checkpoints keeps none,
    because it cannot be resumed.
    """

    trainer: Trainer
    schedule: Literal["rounds", "eager"]
    seed: int
    policies: Mapping[str, Policy]
    """The policies of this process, by role. Finished turns count only for the adapters that sampled them."""
    settings: str | None = None
    """Hash of what ``mgrpo validate`` and ``mgrpo test`` play. None: these commands keep no log."""

    @contextmanager
    def training_log(self, step: int) -> Iterator[ResumeLog | None]:
        """Open the resume log of a training step; yield None if the run keeps none."""
        if self._folder is None:
            yield None
            return
        self.remove_closed()
        path = training_log_path(self._folder, step, rank=self.trainer.global_rank)
        with _told(ResumeLog(path, self._identity), f"step {step}") as resume_log:
            yield resume_log

    @contextmanager
    def held_out_log(self, step: int) -> Iterator[ResumeLog | None]:
        """Open the resume log of the held-out questions: of a validation in a fit, or of ``validate`` and ``test``.

        A command has its own folder, named by a hash of seed, adapters and settings. So a command with other adapters
        or another task neither uses nor removes this log.

        Args:
            step: Training steps before the validation.
        """
        folder, what = self._folder, f"validation at step {step}"
        if folder is not None and self.trainer.state.fn != TrainerFn.FITTING:
            folder = None if self.settings is None else self._command_folder
            what = f"the play kept in {folder}"
        if folder is None:
            yield None
            return
        path = held_out_log_path(folder, step, rank=self.trainer.global_rank)
        # A restart may have another number of ranks, so the finished turns of all ranks' files are used.
        others = [other for other in folder.glob(f"held-out-{step:06d}*.jsonl") if other != path]
        with _told(ResumeLog(path, self._identity, others=others), what) as resume_log:
            yield resume_log

    def remove_closed(self) -> None:
        """Remove the resume logs of steps whose update is in a checkpoint."""
        if self._folder is not None:
            remove_closed(self._folder, saved_steps(self.trainer))

    def remove_finished(self) -> None:
        """Remove the resume log of ``mgrpo validate`` or ``mgrpo test`` when its results are on disk."""
        # All ranks share the folder, so only one removes it.
        if self.settings is not None and self.trainer.is_global_zero:
            folder = self._command_folder
            shutil.rmtree(folder, ignore_errors=True)
            for parent in (folder.parent, folder.parent.parent):
                remove_if_empty(parent)

    @property
    def _folder(self) -> Path | None:
        """Folder of the resume logs; None if the run keeps none."""
        kept = self.schedule == "eager" and isinstance(self.trainer.checkpoint_callback, ModelCheckpoint)
        return Path(self.trainer.default_root_dir) / FOLDER if kept else None

    @property
    def _command_folder(self) -> Path:
        assert self.trainer.state.fn is not None
        return Path(self.trainer.default_root_dir) / FOLDER / self.trainer.state.fn.value / self._identity

    @property
    def _identity(self) -> str:
        fingerprints = {name: policy.fingerprint() for name, policy in self.policies.items()}
        return key_of(self.seed, fingerprints, self.settings)


def played_settings(settings: Any) -> Any:
    """Drop the settings of a task that do not change what is played: judges, and how services are called.

    A user can fix these after a failure, and the repeated command still finds its resume log.

    Args:
        settings: As in a config file: mappings, lists, numbers and strings.
    """
    if isinstance(settings, Mapping):
        return {name: played_settings(value) for name, value in settings.items() if name not in NOT_PLAYED}
    return [played_settings(value) for value in settings] if isinstance(settings, list) else settings


def saved_steps(trainer: Trainer) -> int:
    """Return the number of steps in the run's last checkpoint; 0 without a checkpoint."""
    saver = trainer.checkpoint_callback
    if not isinstance(saver, ModelCheckpoint) or saver.dirpath is None:
        return 0
    return max(checkpoints(Path(saver.dirpath)), default=0)


@contextmanager
def _told(resume_log: ResumeLog, what: str) -> Iterator[ResumeLog]:
    """Yield the resume log, and print how many finished turns and calls it restored."""
    with closing(resume_log):
        if resume_log.found:
            rank_zero_info(f"resuming {what}: {resume_log.found} finished turns and calls are restored.")
        yield resume_log
