"""Predictions: in ``validate`` and ``test``, write main's answers to a file in the format of the benchmark."""

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
    """Writes main's answers during ``mgrpo validate`` and ``mgrpo test``, in the task's own format.

    There is one file for each repeat: ``predictions.jsonl``, or ``predictions-0.jsonl`` and so on. The suffix is
    ``.json`` if the format is one object. Each rank writes the answers to its own questions.

    Args:
        dirpath: Folder of the files; None is the run folder.
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
    """Write the predictions of some groups, one file for each rollout index; return the paths.

    Args:
        folder: Folder of the files; created if missing.
        groups: At least one group; all have the same number of rollouts.
        task: Task that formats the predictions.
        suffix: Text before the extension of each file name.
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
