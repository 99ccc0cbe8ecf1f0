"""Runs of ``mgrpo fit``, ``validate``, ``test`` for benchmarks: resumed, never done twice, in parallel; scalars."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mgrpo_lightning.persistence.checkpoints import checkpoints

_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
"""By run folder: of several that need a run, one does it and the others wait."""


def fit(options: Sequence[str], folder: Path) -> dict[str, Any]:
    """Results of a run of ``mgrpo fit``, which is taken to its end: from its last checkpoint if it was cut off.

    Args:
        options: Its config files and changes.
        folder: The run folder.
    """
    results = folder / "results.json"
    with _locks[folder]:
        if not (results.exists() and "after" in json.loads(results.read_text())):
            resume = ["--ckpt_path=last"] if checkpoints(folder / "checkpoints") else []
            _mgrpo("fit", [*options, *resume], folder)
    found = json.loads(results.read_text())
    assert isinstance(found, dict)
    return found


def validate(options: Sequence[str], folder: Path) -> None:
    """Have a run of ``mgrpo validate``.

    Args:
        options: Its config files and changes.
        folder: The run folder.
    """
    with _locks[folder]:
        if not (folder / "results.json").exists():
            _mgrpo("validate", options, folder)


def tested(options: Sequence[str], folder: Path) -> dict[str, Any]:
    """What ``mgrpo test`` has found, which is run unless the folder has it.

    Args:
        options: Its config files and changes.
        folder: The run folder, which may be that of a fit.
    """
    results = folder / "results.json"
    with _locks[folder]:
        if not (results.exists() and "test" in json.loads(results.read_text())):
            _mgrpo("test", options, folder)
    found = json.loads(results.read_text())["test"]
    assert isinstance(found, dict)
    return found


def read_scalars(folder: Path) -> dict[str, list[float]]:
    """The figures of every training step, by name, those of validations left out.

    Of a step that was logged twice, in a resumed run, the last is taken.

    Args:
        folder: Of TensorBoard.
    """
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found = {}
    for name in (name for name in events.Tags()["scalars"] if not name.startswith("val/")):
        values = {event.step: event.value for event in events.Scalars(name)}
        found[name] = [values[step] for step in sorted(values)]
    return found


def _mgrpo(command: str, options: Sequence[str], folder: Path) -> None:
    """Run a command with a run folder of its own; from ``side_by_side`` what it says goes to a file beside that."""
    where = [f"--run.root={folder.parent}", f"--run.name={folder.name}"]
    words = [sys.executable, "-m", "mgrpo_lightning", command, *options, *where]
    if threading.current_thread() is threading.main_thread():
        subprocess.run(words, check=True)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{folder.name}.log", "ab") as log:
        subprocess.run(words, check=True, stdout=log, stderr=log)


def side_by_side(work: Sequence[Callable[[], object]], jobs: int) -> None:
    """Do all pieces of work, so many at a time, each with its share of the cores; the first failure ends it.

    Args:
        work: What starts runs.
        jobs: 1: one after the other, in this thread and with all cores.
    """
    if jobs == 1:
        for piece in work:
            piece()
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for done in as_completed([pool.submit(piece) for piece in work]):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
