"""The command ``mgrpo`` that kills itself in the middle of a batch.

KILL_AT=5 python -m tests.support.killed_in_a_batch fit --config ...      # at its fifth optimizer step
"""

from __future__ import annotations

import itertools
import os
import signal

import torch
from torch.optim import AdamW
from typing_extensions import override

from mgrpo_lightning.commands.main import main

_steps = itertools.count(1)


class _Killing(AdamW):
    @override
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step(closure)
        if next(_steps) == int(os.environ["KILL_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.optim.AdamW = _Killing  # type: ignore[misc]
    main()
