"""Predictions: main's answers to a held-out split, as a file that a benchmark takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from mgrpo_lightning.callbacks.held_out import HeldOut
from mgrpo_lightning.persistence.atomic import atomic_path
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.tasks.base import Task


class Predictions(HeldOut):
    """Writes the answers to what ``mgrpo validate`` or ``mgrpo test`` asks, in the task's own format.

    One file a repeat, ``predictions.jsonl`` or ``predictions-0.jsonl`` and so on (``.json`` where the format is one
    object); each rank writes those of its part.

    Args:
        dirpath: Where they go; None is the run folder.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        super().__init__()
        self.dirpath = None if dirpath is None else str(Path(dirpath).absolute())

    @override
    def on_held_out(self, trainer: Trainer, groups: list[Group]) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            return
        folder = Path(self.dirpath or trainer.default_root_dir)
        rank = f"-rank-{trainer.global_rank}" if trainer.world_size > 1 else ""
        write_predictions(folder, groups, trainer.datamodule.task, suffix=rank)  # type: ignore[attr-defined]


def write_predictions(folder: Path, groups: Sequence[Group], task: Task, *, suffix: str = "") -> list[Path]:
    """The files of some groups, one for each of their rollouts.

    Args:
        folder: Made if missing.
        groups: With equally many rollouts.
        task: Whose format it is.
        suffix: Of the names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    repeats = len(groups[0].rollouts)
    paths = []
    for k in range(repeats):
        ending, text = task.predictions([(group.question, group.rollouts[k]) for group in groups])
        path = folder / f"predictions{f'-{k}' if repeats > 1 else ''}{suffix}{ending}"
        with atomic_path(path) as temporary:
            temporary.write_text(text, "utf-8")
        paths.append(path)
    return paths
