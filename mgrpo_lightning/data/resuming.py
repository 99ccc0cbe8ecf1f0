"""Resume a killed run: open the resume log of the current step, and read earlier steps from the journal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from mgrpo_lightning.data.recorded import recorded_groups
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.persistence.checkpoints import checkpoints
from mgrpo_lightning.persistence.resume_log import (
    FOLDER,
    OpenStep,
    held_out_path,
    key_of,
    open_path,
    remove_closed,
    remove_if_empty,
)
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.roles.config import RoleConfig

if TYPE_CHECKING:
    from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule

NOT_PLAYED = ("judge", "expert", "key_variable", "timeout", "attempts", "backoff", "concurrency", "cache")
"""Settings of a task that do not change what is played, so a run may resume after they changed."""


@contextmanager
def open_step(data: AlignedTrajectoryDataModule, step: int) -> Iterator[OpenStep | None]:
    """Open the resume log of a training step; yield None if the run keeps none.

    A killed run that resumes repeats the finished turns of its log. The ``rounds`` schedule keeps no log, because it
    plays the same turns again. A run without checkpoints keeps none, because it cannot be resumed.

    Args:
        data: The data module that plays the step.
        step: Training step.
    """
    trainer = _trainer(data)
    if (folder := _open_steps(trainer, data.schedule)) is None:
        yield None
        return
    remove_closed_steps(trainer, data.schedule)
    with _told(OpenStep(open_path(folder, step, rank=trainer.global_rank), _identity(data)), f"step {step}") as memory:
        yield memory


@contextmanager
def open_held_out(data: AlignedTrajectoryDataModule) -> Iterator[OpenStep | None]:
    """Open the resume log of the held-out questions: of a validation in a fit, or of ``validate`` and ``test``.

    A command has its own folder, named by a hash of seed, adapters and settings. So a command with other adapters or
    another task neither uses nor removes this log.

    Args:
        data: The data module that plays the questions. A command keeps a log only if ``data.settings`` is set.
    """
    trainer = _trainer(data)
    folder, step = _open_steps(trainer, data.schedule), data.module.num_steps
    what = f"validation at step {step}"
    if folder is not None and trainer.state.fn != TrainerFn.FITTING:
        folder = _command_folder(data) if data.settings is not None else None
        what = f"what is kept in {folder}"
    if folder is None:
        yield None
        return
    path = held_out_path(folder, step, rank=trainer.global_rank)
    # A restart may have another number of ranks, so the finished turns of all ranks' files are used.
    others = [other for other in folder.glob(f"held-out-{step:06d}*.jsonl") if other != path]
    with _told(OpenStep(path, _identity(data), others=others), what) as memory:
        yield memory


def played_settings(settings: Any) -> Any:
    """Drop the settings of a task that do not change what is played: judges, and how services are called.

    A user can fix these after a failure, and the repeated command still finds its resume log.

    Args:
        settings: As in a config file: mappings, lists, numbers and strings.
    """
    if isinstance(settings, Mapping):
        return {name: played_settings(value) for name, value in settings.items() if name not in NOT_PLAYED}
    return [played_settings(value) for value in settings] if isinstance(settings, list) else settings


def remove_finished(data: AlignedTrajectoryDataModule) -> None:
    """Remove the resume log of a command whose results are on disk.

    Args:
        data: The data module of ``mgrpo validate`` or ``mgrpo test``.
    """
    # All ranks share the folder, so only one removes it.
    if data.settings is not None and _trainer(data).is_global_zero:
        folder = _command_folder(data)
        shutil.rmtree(folder, ignore_errors=True)
        for parent in (folder.parent, folder.parent.parent):
            remove_if_empty(parent)


@contextmanager
def _told(memory: OpenStep, what: str) -> Iterator[OpenStep]:
    """Yield the resume log, and print how many finished turns and calls it restored."""
    with closing(memory):
        if memory.found:
            rank_zero_info(f"{what} goes on: {memory.found} finished turns and calls are taken up.")
        yield memory


def _identity(data: AlignedTrajectoryDataModule) -> str:
    # Finished turns are only valid for exactly the adapters that sampled them.
    policies = {name: policy.fingerprint() for name, policy in data.module.policies.items()}
    return key_of(data.seed, policies, data.settings)


def _command_folder(data: AlignedTrajectoryDataModule) -> Path:
    trainer = _trainer(data)
    assert trainer.state.fn is not None
    return Path(trainer.default_root_dir) / FOLDER / trainer.state.fn.value / _identity(data)


def saved_steps(trainer: Trainer) -> int:
    """Return the number of steps in the run's last checkpoint; 0 without a checkpoint."""
    saver = trainer.checkpoint_callback
    if not isinstance(saver, ModelCheckpoint) or saver.dirpath is None:
        return 0
    return max(checkpoints(Path(saver.dirpath)), default=0)


def remove_closed_steps(trainer: Trainer, schedule: str) -> None:
    """Remove the resume logs of steps whose update is in a checkpoint.

    Args:
        trainer: The run's trainer.
        schedule: Schedule of the data module, ``rounds`` or ``eager``.
    """
    if (folder := _open_steps(trainer, schedule)) is not None:
        remove_closed(folder, saved_steps(trainer))


def played_before(folder: Path | None, step: int, roles: Mapping[str, RoleConfig], part: range) -> list[Group]:
    """Read a rank's part of an earlier step, for a role that trains on it later (``lag``, ``queue``).

    Args:
        folder: Folder of the journal, or None.
        step: Training step.
        roles: The team.
        part: Indices of the rank's queries.

    Raises:
        ConfigurationError: No journal is configured.
        DataError: The journal has no such step.
    """
    if folder is None:
        raise ConfigurationError(
            "a role with a lag or a queue goes on from the journal, and the data module knows none.",
            hint="give its folder as `journal`, or leave lag and queue out.",
        )
    return [group for group in recorded_groups(folder, step, roles) if group.rollouts[0].main.key.query in part]


def _trainer(data: AlignedTrajectoryDataModule) -> Trainer:
    assert data.trainer is not None
    return data.trainer


def _open_steps(trainer: Trainer, schedule: str) -> Path | None:
    """Folder of the resume logs; None if the run keeps none."""
    kept = schedule == "eager" and isinstance(trainer.checkpoint_callback, ModelCheckpoint)
    return Path(trainer.default_root_dir) / FOLDER if kept else None
