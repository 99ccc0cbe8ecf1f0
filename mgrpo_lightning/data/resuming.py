"""What a restarted run takes up: finished turns of the step in play, and steps that were played before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from mgrpo_lightning.checkpointing import checkpoints
from mgrpo_lightning.data.recorded import recorded_groups
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.open_step import OpenStep, held_out_path, open_path, remove_closed
from mgrpo_lightning.roles import RoleConfig
from mgrpo_lightning.trajectory import Group


@contextmanager
def open_step(
    trainer: Trainer, step: int, *, schedule: str, identity: Callable[[], str], held_out: int | None = None
) -> Iterator[OpenStep | None]:
    """Where finished turns of a step are kept, which a run that is killed and resumed says again; None: nowhere.

    A run under ``rounds`` needs none, as it plays the same again; a run without checkpoints is never resumed.

    Args:
        trainer: The run.
        step: Training step, or steps done before a validation.
        schedule: Of its play.
        identity: Of all that must be the same for old turns to count.
        held_out: Index of the first held-out question of those that are played; None: a training step is.
    """
    folder = _open_steps(trainer, schedule)
    if folder is None:
        yield None
        return
    remove_closed_steps(trainer, schedule)
    path = open_path(folder, step, rank=trainer.global_rank)
    what = f"step {step} goes on"
    if held_out is not None:
        path, what = held_out_path(folder, step, first=held_out), f"validation at step {step} goes on"
    with closing(OpenStep(path, identity())) as memory:
        if memory.found:
            rank_zero_info(f"{what}: {memory.found} finished turns and calls are taken up.")
        yield memory


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


def _open_steps(trainer: Trainer, schedule: str) -> Path | None:
    """The folder of open steps, None where none are kept."""
    kept = schedule == "eager" and isinstance(trainer.checkpoint_callback, ModelCheckpoint)
    return Path(trainer.default_root_dir) / "open_steps" if kept else None
