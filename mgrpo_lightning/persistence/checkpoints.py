"""Write checkpoints atomically, find the last one that loads, and refuse to overwrite another run's checkpoints."""

from __future__ import annotations

import pickle
import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.persistence.atomic import atomic_path

FILENAME = "step={step:06d}"
"""Name pattern of the checkpoints. The step in the name decides which one is the last."""
BEST = "best"
"""Folder, in the run folder, of the checkpoints with the best held-out score."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Save a checkpoint under a temporary name in the target folder, then fsync and rename it: no partial file exists.

    Lightning's own writer goes through $TMPDIR and moves the file. That is not atomic across file systems, and not
    fsynced.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Open the file here, because torch's own writer hides a full disk behind a RuntimeError.
        with atomic_path(target) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the checkpoints in a folder by the number of steps done, unordered.

    Args:
        folder: A run's ``checkpoints`` folder.
    """
    return {int(m[1]): p for p in folder.glob("step=*.ckpt") if (m := re.fullmatch(r"step=(\d+)", p.stem))}


def last_checkpoint(folder: Path) -> Path:
    """Return the checkpoint of the highest step that loads; modification times are not used.

    Args:
        folder: A run's ``checkpoints`` folder.

    Raises:
        DataError: No checkpoint loads.
    """
    found = checkpoints(folder)
    for _, path in sorted(found.items(), reverse=True):
        # A crash of the machine or a full disk may have damaged the newest one; an older one still loads.
        with suppress(DataError):
            load_checkpoint(path)
            return path
    raise DataError(
        f"no checkpoint in {folder} can be loaded ({len(found)} found).",
        hint="give --ckpt_path a file, or leave it out to start a new run under another run.name.",
    )


def best_path(folder: Path, role: str | None = None) -> Path:
    """Return the path of the checkpoint with the best held-out score, which need not exist.

    Args:
        folder: A run's ``best`` folder.
        role: The role whose own score counts; None: that of the team.
    """
    return (folder if role is None else folder / "roles" / role) / "checkpoint.ckpt"


def named_checkpoint(run: Path, name: str | None) -> Path | None:
    """Resolve the value of ``--ckpt_path``; None is none.

    Args:
        run: The run folder.
        name: ``last``: the newest checkpoint that loads. ``best``: the one with the team's best held-out score.
            ``best:ROLE``: with the best score of a role. Else a path.

    Raises:
        DataError: No checkpoint loads, or the run has not kept the best one.
    """
    if name == "last":
        return last_checkpoint(run / "checkpoints")
    best, _, role = (name or "").partition(":")
    if best != BEST:
        return None if name is None else Path(name)
    path = best_path(run / BEST, role or None)
    if not path.exists():
        raise DataError(
            f"--ckpt_path is {name}, but there is no {path}.",
            hint="give last or a path; a fit keeps the best checkpoint of its validations unless best.score is null.",
        )
    return path


def refuse_two_runs(folder: Path, start: Path | None) -> None:
    """Reject a start that would overwrite parts of another run in the same folder.

    Args:
        folder: A run's ``checkpoints`` folder.
        start: The checkpoint from which the run starts; None for a new run.

    Raises:
        ConfigurationError: The folder holds checkpoints, and the run does not start from the last one.
    """
    found = checkpoints(folder)
    if found and (start is None or start.resolve() != last_checkpoint(folder).resolve()):
        raise ConfigurationError(
            f"{folder.parent} already holds a run of {max(found)} steps, which this command does not resume.",
            hint="give --ckpt_path last to resume it, give another run.name to start a new run, or remove the folder "
            "or the checkpoints after the given one.",
        )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU; nothing is unpickled but tensors and plain values.

    Args:
        path: A file that ``AtomicCheckpointIO`` wrote.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"the checkpoint {path} cannot be loaded: {reason}.", hint="give another checkpoint."
        ) from error
    return checkpoint
