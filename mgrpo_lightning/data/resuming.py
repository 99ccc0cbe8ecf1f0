"""What a restarted run takes up: finished turns of the step in play, and steps that were played before."""

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
"""Names of settings of a task."""


@contextmanager
def open_step(data: AlignedTrajectoryDataModule, step: int) -> Iterator[OpenStep | None]:
    """Where finished turns of a step are kept, which a run that is killed and resumed says again; None: nowhere.

    A run under ``rounds`` needs none, as it plays the same again; a run without checkpoints is never resumed.

    Args:
        data: Plays the step.
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
    """Like ``open_step``, for all held-out questions: of a fit, or of a command that does nothing else.

    Such a command has a folder for what it plays with: neither one with other adapters nor one with another task takes
    up, or removes, what is not its own.

    Args:
        data: Plays them; such a command keeps what it finished if the data module has ``settings``.
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
    others = [other for other in folder.glob(f"held-out-{step:06d}*.jsonl") if other != path]
    with _told(OpenStep(path, _identity(data), others=others), what) as memory:
        yield memory


def played_settings(settings: Any) -> Any:
    """A task's settings without those that have no part in what is played: its judges, and how services are asked.

    So these can be mended, and the command given again goes on.

    Args:
        settings: As in a config: mappings, lists, numbers, texts.
    """
    if isinstance(settings, Mapping):
        return {name: played_settings(value) for name, value in settings.items() if name not in NOT_PLAYED}
    return [played_settings(value) for value in settings] if isinstance(settings, list) else settings


def remove_finished(data: AlignedTrajectoryDataModule) -> None:
    """Remove what a command kept, whose results are on disk now.

    Args:
        data: Of ``mgrpo validate`` or ``mgrpo test``.
    """
    if data.settings is not None and _trainer(data).is_global_zero:
        folder = _command_folder(data)
        shutil.rmtree(folder, ignore_errors=True)
        for parent in (folder.parent, folder.parent.parent):
            remove_if_empty(parent)


@contextmanager
def _told(memory: OpenStep, what: str) -> Iterator[OpenStep]:
    """An open step; whoever looks on is told what goes on where there is something to go on with."""
    with closing(memory):
        if memory.found:
            rank_zero_info(f"{what} goes on: {memory.found} finished turns and calls are taken up.")
        yield memory


def _identity(data: AlignedTrajectoryDataModule) -> str:
    policies = {name: policy.fingerprint() for name, policy in data.module.policies.items()}
    return key_of(data.seed, policies, data.settings)


def _command_folder(data: AlignedTrajectoryDataModule) -> Path:
    trainer = _trainer(data)
    assert trainer.state.fn is not None
    return Path(trainer.default_root_dir) / FOLDER / trainer.state.fn.value / _identity(data)


def saved_steps(trainer: Trainer) -> int:
    """Steps that the run's last checkpoint holds; 0 if there is none.

    Args:
        trainer: The run.
    """
    saver = trainer.checkpoint_callback
    if not isinstance(saver, ModelCheckpoint) or saver.dirpath is None:
        return 0
    return max(checkpoints(Path(saver.dirpath)), default=0)


def remove_closed_steps(trainer: Trainer, schedule: str) -> None:
    """Remove the open steps whose update a checkpoint holds.

    Args:
        trainer: The run.
        schedule: Of its play.
    """
    if (folder := _open_steps(trainer, schedule)) is not None:
        remove_closed(folder, saved_steps(trainer))


def played_before(folder: Path | None, step: int, roles: Mapping[str, RoleConfig], part: range) -> list[Group]:
    """A rank's part of an earlier step, for a role that trains on it late.

    Args:
        folder: The journal, if there is one.
        step: Training step.
        roles: The team.
        part: Indices of the rank's queries.

    Raises:
        ConfigurationError: No journal is known.
        DataError: The journal lacks the step.
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
    """The folder of open steps, None where none are kept."""
    kept = schedule == "eager" and isinstance(trainer.checkpoint_callback, ModelCheckpoint)
    return Path(trainer.default_root_dir) / FOLDER if kept else None
