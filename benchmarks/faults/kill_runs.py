"""Shared by the kill benchmarks: start and resume a run, count kills by point, compare with a run never killed."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from mgrpo_lightning.persistence.resume_log import whole_lines
from mgrpo_lightning.records.journal import read_groups

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
    roles = [f"--role={role}", "--data.peers.keep_steps=0"] if role else []
    words = [point, str(seed), *FIT, *names, *roles, *resume]
    with open(folder.parent / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.faults.kill_points", *words], env=environment, stdout=log, stderr=log
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
    for path in folder.glob("resume_logs/step-*.jsonl"):
        values = [line["value"] for line in whole_lines(path)[0][1:]]
        ids = [(tuple(value["ids"]), tuple(value["logprobs"])) for value in values if "ids" in value]
        turns[int(path.stem.removeprefix("step-"))] = Counter(ids)
    return turns


class Kills:
    """Kills of runs of one schedule, counted by point, and what was found wrong with the runs.

    Args:
        root: Folder of the runs.
        schedule: Of their play.
        environment: Of the children.
        chance: Decides where and when.
        points: Named ones.
        faults: Names of what is counted.
    """

    def __init__(
        self,
        root: Path,
        schedule: str,
        environment: dict[str, str],
        chance: random.Random,
        *,
        points: Iterable[str],
        faults: Iterable[str],
    ) -> None:
        self.schedule = schedule
        self.root = root
        self.environment = environment
        self.chance = chance
        self.hits: Counter[str] = Counter(dict.fromkeys([BY_TIME, *points], 0))
        self.faults: Counter[str] = Counter(dict.fromkeys(faults, 0))
        self.runs = 0

    def start(self, folder: Path, role: str | None = None) -> tuple[subprocess.Popen[bytes], str]:
        """Start or resume a run that is to die at a point with the fewest hits, and that point.

        Args:
            folder: Of the run.
            role: The one that it plays, None for all.
        """
        rarest = min(self.hits.values())
        point = self.chance.choice([point for point, count in self.hits.items() if count == rarest])
        patched = "" if point == BY_TIME else point
        return start(folder, self.environment, self.schedule, patched, self.chance.getrandbits(30), role), point

    def count_lost(self, finished: Mapping[int, Counter[Turn]], steps: Mapping[str, Any]) -> None:
        """Count the turns that were finished before a kill and stand in no journal.

        Args:
            finished: By step.
            steps: Of ``record``.
        """
        for step, turns in finished.items():
            spans = [span for _, spans, *_ in steps[f"step-{step:06d}.parquet"] for span in spans]
            said = Counter((span.ids, span.logprobs) for span in spans if span.kind == "action")
            self.faults["lost"] += (turns - said).total()

    def count_different(self, folder: Path, role: str | None = None) -> None:
        """Count a run that is not bitwise the straight one, or under ``eager`` not what its journal gives again.

        Args:
            folder: Of the run, or of a role's part of it.
            role: Whose part, None for all.
        """
        if self.schedule == "rounds":
            self.faults["different"] += not same(record(folder, role), record(self.root / "straight", role))
            return
        command = [sys.executable, "-m", "mgrpo_lightning", "replay", str(folder)]
        with open(self.root / "log", "ab") as log:
            self.faults["different"] += bool(subprocess.call(command, env=self.environment, stdout=log, stderr=log))
