"""Runs of ``mgrpo`` that a benchmark is made of: each in its own folder, taken to its end, and never done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgrpo_lightning.checkpointing import checkpoints


def fit(options: Sequence[str], folder: Path) -> dict[str, Any]:
    """Results of a run of ``mgrpo fit``, which is taken to its end: from its last checkpoint if it was cut off.

    Args:
        options: Its config files and changes.
        folder: The run folder.
    """
    results = folder / "results.json"
    if not (results.exists() and "after" in json.loads(results.read_text())):
        resume = ["--ckpt_path=last"] if checkpoints(folder / "checkpoints") else []
        where = [f"--run.root={folder.parent}", f"--run.name={folder.name}"]
        subprocess.run([sys.executable, "-m", "mgrpo_lightning", "fit", *options, *where, *resume], check=True)
    found = json.loads(results.read_text())
    assert isinstance(found, dict)
    return found
