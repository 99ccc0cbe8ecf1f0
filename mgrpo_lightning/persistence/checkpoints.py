"""Writing checkpoints atomically beside each other, and finding the last one that loads."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.persistence.atomic import atomic_path

FILENAME = "step={step:06d}"
"""Name pattern of the checkpoints; the step in it decides which one is the last."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Saves under a temporary name in the target folder, fsyncs and renames: a file is there whole or not at all.

    Lightning's own writes through $TMPDIR and moves, which is not atomic across filesystems and is not fsynced.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # an open file, as torch's own writer hides a full disk behind a RuntimeError
        with atomic_path(target) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by the number of steps done, in no order.

    Args:
        folder: A run's ``checkpoints`` folder.
    """
    return {int(m[1]): p for p in folder.glob("step=*.ckpt") if (m := re.fullmatch(r"step=(\d+)", p.stem))}


def last_checkpoint(folder: Path) -> Path:
    """The checkpoint of the highest step that loads; the clock plays no part.

    Args:
        folder: A run's ``checkpoints`` folder.

    Raises:
        DataError: There is none.
    """
    found = checkpoints(folder)
    for _, path in sorted(found.items(), reverse=True):
        if _loads(path):
            return path
    raise DataError(
        f"no checkpoint in {folder} loads ({len(found)} found).",
        hint="give --ckpt_path a file, or leave it out to start a new run under another run.name.",
    )


def refuse_two_runs(folder: Path, start: Path | None) -> None:
    """Keep a run from mixing with another one that has been in its folder.

    Args:
        folder: A run's ``checkpoints`` folder.
        start: The checkpoint that the run begins with, None for none.

    Raises:
        ConfigurationError: The folder has a run that this one would not go on with, but write over in part.
    """
    found = checkpoints(folder)
    if found and (start is None or start.resolve() != last_checkpoint(folder).resolve()):
        raise ConfigurationError(
            f"{folder.parent} holds a run that has done {max(found)} steps, which this one does not go on with.",
            hint="give --ckpt_path last to go on with it, another run.name to start beside it, or remove the folder "
            "or the checkpoints after the given one.",
        )


def _loads(path: Path) -> bool:
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, BadZipFile, pickle.UnpicklingError):
        return False
    return True
