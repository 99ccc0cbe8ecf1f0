"""Runs of the kill benchmark: how one is started and resumed, and what is compared when it has ended."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from mgrpo_lightning.journal import read_groups
from mgrpo_lightning.open_step import whole_lines

Turn = tuple[tuple[int, ...], tuple[float, ...]]
"""Ids and log-probabilities."""
STEPS, QUERIES, ROLLOUTS = 6, 2, 4
EXPECTED = set(itertools.product(range(QUERIES), range(ROLLOUTS)))
"""Query and rollout of each step's rollouts."""
BY_TIME = "by time"

FIT = [
    *("fit", "--config", "configs/quickstart.yaml", "--config", "configs/debug/fast.yaml"),
    *(f"--trainer.max_steps={STEPS}", "--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0"),
    *(f"--data.queries_per_step={QUERIES}", f"--data.rollouts_per_query={ROLLOUTS}"),
    "--trainer.enable_progress_bar=false",
]


def start(
    folder: Path, environment: dict[str, str], schedule: str, point: str = "", seed: int = 0, role: str | None = None
) -> subprocess.Popen[bytes]:
    """Start or resume a run.

    Args:
        folder: Of the run.
        environment: Of the child.
        schedule: Of its play.
        point: Where it is to die.
        seed: Decides which time it passes there.
        role: The one that it plays, None for all.
    """
    resume = ["--ckpt_path=last"] if list((folder / (role or "")).glob("checkpoints/step=*.ckpt")) else []
    names = [f"--data.schedule={schedule}", f"--run.root={folder.parent}", f"--run.name={folder.name}"]
    words = [point, str(seed), *FIT, *names, *([f"--role={role}"] if role else []), *resume]
    with open(folder.parent / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kill_points", *words], env=environment, stdout=log, stderr=log
        )


def record(folder: Path, role: str | None = None) -> dict[str, Any]:
    """All that a finished run must have in common with the straight one, seconds left out.

    Args:
        folder: Of the run.
        role: Whose part of it, None for all.
    """
    state = torch.load(folder / "checkpoints" / f"step={STEPS:06d}.ckpt", weights_only=True)
    steps = {}
    for path in sorted(folder.glob("journal/step-*.parquet")):
        rollouts = [rollout for group in read_groups(path) for rollout in group.rollouts]
        steps[path.name] = [
            (t.key, t.spans, t.messages, r.scores[t.key.invocation]) for r in rollouts for t in r.trajectories(role)
        ]
    rewards = state["callbacks"]["Results"]["rewards"]
    if role is None:
        return {"roles": state["roles"], "rewards": rewards, "steps": steps}
    return {"roles": {role: state["roles"][role]}, "rewards": {role: rewards[role]}, "steps": steps}


def same(ours: Any, theirs: Any) -> bool:
    """Equality of nested records, bitwise for tensors."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    return bool(ours == theirs)


def finished_turns(folder: Path) -> dict[int, Counter[Turn]]:
    """The turns in the open steps of a run that was killed, by step.

    Args:
        folder: Of the run.
    """
    turns = {}
    for path in folder.glob("open_steps/step-*.jsonl"):
        values = [line["value"] for line in whole_lines(path)[0][1:]]
        ids = [(tuple(value["ids"]), tuple(value["logprobs"])) for value in values if "ids" in value]
        turns[int(path.stem.removeprefix("step-"))] = Counter(ids)
    return turns
