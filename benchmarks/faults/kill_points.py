"""Child of the kill benchmark: ``mgrpo`` patched to kill itself at a named point, such as the middle of a save.

python -m benchmarks.faults.kill_points POINT SEED fit --config ...
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from mgrpo_lightning.commands.run_command import main as mgrpo
from mgrpo_lightning.modules.microbatch import MicroBatch
from mgrpo_lightning.modules.update import Update
from mgrpo_lightning.persistence.resume_log import ResumeLog
from mgrpo_lightning.policy.adapters import AdapterBank
from mgrpo_lightning.policy.sampling.turns import Turns
from mgrpo_lightning.store.disk import Disk


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _replace(owner: Any, name: str, count: int, last: Callable[..., object] = _die) -> None:
    """Make the ``count``-th call of a function the last thing this process does.

    Args:
        owner: Its module or class.
        name: Its name there.
        count: Which call.
        last: What is done in its place, given the function and the call's arguments.
    """
    original = getattr(owner, name)
    calls = itertools.count(1)

    def patched(*args: Any, **kwargs: Any) -> Any:
        if next(calls) < count:
            return original(*args, **kwargs)
        last(original, *args, **kwargs)
        return _die()

    setattr(owner, name, patched)


def _through(original: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    original(*args, **kwargs)


def _mid_backward(count: int) -> None:
    original = Update._logprobs
    calls = itertools.count(1)

    def patched(self: Update, micro: MicroBatch) -> torch.Tensor:
        logprobs = original(self, micro)
        if next(calls) == count:
            logprobs.register_hook(_die)
        return logprobs

    Update._logprobs = patched  # type: ignore[method-assign]


def _half_a_checkpoint(_: object, checkpoint: object, file: Any) -> None:
    file.write(b"half" * 1000)
    file.flush()


def _half_a_line(original: Callable[..., object], memory: ResumeLog, record: object) -> None:
    memory._file.write(b"00000000 {half")


def _half_a_file(_: object, disk: Disk, descriptor: int, data: bytes) -> None:
    os.write(descriptor, data[: len(data) // 2])


def _half_a_table(_: object, table: object, where: Any, **options: object) -> None:
    Path(where).write_bytes(b"PAR1half")


POINTS: dict[str, Callable[[random.Random], None]] = {
    "mid turn": lambda chance: _replace(Turns, "step", chance.randint(1, 120)),
    "mid backward": lambda chance: _mid_backward(chance.randint(1, 4)),
    "optimizer step to save": lambda chance: _replace(torch.optim.AdamW, "step", chance.randint(1, 2), _through),
    "mid journal": lambda chance: _replace(pq, "write_table", chance.randint(1, 2), _half_a_table),
    "mid save": lambda chance: _replace(torch, "save", chance.randint(1, 2), _half_a_checkpoint),
    "before rename": lambda chance: _replace(os, "replace", chance.randint(1, 6)),
    "after rename": lambda chance: _replace(os, "replace", chance.randint(1, 6), _through),
    "mid export": lambda chance: _replace(AdapterBank, "save", 1, _through),
}
"""Where a child kills itself; a point that is not reached in what is left of a run counts no hit."""
STORE_POINTS: dict[str, Callable[[random.Random], None]] = {
    "mid segment": lambda chance: _replace(Disk, "fill", chance.randint(1, 80), _half_a_file),
    "before its rename": lambda chance: _replace(Disk, "rename", chance.randint(1, 80)),
    "after its rename": lambda chance: _replace(Disk, "rename", chance.randint(1, 80), _through),
}
"""Further ones of a role in a process of its own: a beat counts like a segment."""
EAGER_POINTS = POINTS | {"mid line": lambda chance: _replace(ResumeLog, "_append", chance.randint(1, 60), _half_a_line)}


if __name__ == "__main__":
    _, place, seed, *words = sys.argv
    if place:
        (EAGER_POINTS | STORE_POINTS)[place](random.Random(int(seed)))
    mgrpo(words)
