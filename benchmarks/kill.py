"""Kill runs with SIGKILL, resume them, and compare with a run that was never killed: nothing lost, doubled or changed.

    python -m benchmarks.kill [--kills 50] [--tmpdir /dev/shm] [--json FILE]

A small quickstart team under the ``rounds`` schedule. A run is killed again and again on its way: at a random time, or
inside of one of the named points (in the middle of a turn, of a backward pass, of writing a checkpoint, ...), which the
child process patches into itself. At its end, adapters, optimizer state and rewards must be bitwise those of the
straight run, and every step's journal must hold the same trajectories, each once. Prints the hits of every point.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from mgrpo_lightning.cli import main as mgrpo
from mgrpo_lightning.journal import read_groups
from mgrpo_lightning.modules.microbatch import MicroBatch
from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.policy.adapters import AdapterBank
from mgrpo_lightning.policy.sampling.turns import Turns

STEPS = 6
BY_TIME = "by time"

FIT = [
    *("fit", "--config", "configs/quickstart.yaml", "--config", "configs/debug/fast.yaml"),
    *(f"--trainer.max_steps={STEPS}", "--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0"),
    *("--data.init_args.rollouts_per_query=4", "--trainer.enable_progress_bar=false"),
]


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
    original = RoleModule._logprobs
    calls = itertools.count(1)

    def patched(self: RoleModule, micro: MicroBatch) -> torch.Tensor:
        logprobs = original(self, micro)
        if next(calls) == count:
            logprobs.register_hook(_die)
        return logprobs

    RoleModule._logprobs = patched  # type: ignore[method-assign]


def _half_a_checkpoint(_: object, checkpoint: object, file: Any) -> None:
    file.write(b"half" * 1000)
    file.flush()


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


def start(
    folder: Path, environment: dict[str, str], point: str | None = None, seed: int = 0
) -> subprocess.Popen[bytes]:
    """Start or resume a run.

    Args:
        folder: Of the run.
        environment: Of the child.
        point: Where it is to die.
        seed: Decides which time it passes there.
    """
    resume = ["--ckpt_path=last"] if list(folder.glob("checkpoints/step=*.ckpt")) else []
    child = ["--child", point, str(seed)] if point else ["--child", "", "0"]
    words = [*child, *FIT, f"--run.root={folder.parent}", f"--run.name={folder.name}", *resume]
    with open(folder.parent / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kill", *words], env=environment, stdout=log, stderr=log
        )


def record(folder: Path) -> dict[str, Any]:
    """All that a finished run must have in common with the straight one, seconds left out."""
    state = torch.load(folder / "checkpoints" / f"step={STEPS:06d}.ckpt", weights_only=True)
    steps = {}
    for path in sorted(folder.glob("journal/step-*.parquet")):
        rollouts = [rollout for group in read_groups(path) for rollout in group.rollouts]
        steps[path.name] = [(t.key, t.spans, t.messages, r.scores) for r in rollouts for t in r.trajectories()]
    return {"roles": state["roles"], "rewards": state["callbacks"]["Results"]["rewards"], "steps": steps}


def same(ours: Any, theirs: Any) -> bool:
    """Equality of nested records, bitwise for tensors."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    return bool(ours == theirs)


def main() -> None:
    """Kill, resume, compare, and print the hits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tmpdir", help="$TMPDIR of the runs, for instance on another device than the run folder")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if arguments.tmpdir:
        environment["TMPDIR"] = arguments.tmpdir
    hits: Counter[str] = Counter(dict.fromkeys([BY_TIME, *POINTS], 0))
    runs, equal = 0, 0
    with tempfile.TemporaryDirectory() as root:
        started = time.monotonic()
        assert start(Path(root) / "straight", environment).wait() == 0, (Path(root) / "log").read_text()
        length = time.monotonic() - started
        expected = record(Path(root) / "straight")
        while hits.total() < arguments.kills:
            folder = Path(root) / f"killed-{runs}"
            runs += 1
            while _attempt(folder, environment, hits, arguments.kills, length, chance):
                print(f"{hits.total()} kills, {runs} runs", end="\r", flush=True)
            equal += same(record(folder), expected)
    print("\n| point | hits |\n|---|---|")
    for point, count in hits.items():
        print(f"| {point} | {count} |")
    print(f"\n{hits.total()} kills in {runs} runs; {equal} of them ended as the straight run did, bitwise.")
    if arguments.json:
        arguments.json.write_text(json.dumps({"hits": dict(hits), "runs": runs, "equal": equal}, indent=2))
    if equal < runs or 0 in hits.values():
        raise SystemExit("a run differs, or a point was never hit")


def _attempt(
    folder: Path, environment: dict[str, str], hits: Counter[str], kills: int, length: float, chance: random.Random
) -> bool:
    """One attempt at a run, to be killed at the point with the fewest hits; whether it was."""
    rarest = min(hits.values())
    point = chance.choice([point for point, count in hits.items() if count == rarest])
    if hits.total() >= kills:
        assert start(folder, environment).wait() == 0, (folder.parent / "log").read_text()
        return False
    process = start(folder, environment, None if point == BY_TIME else point, chance.getrandbits(30))
    if point == BY_TIME:
        try:
            process.wait(chance.uniform(0, length))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    code = process.wait()
    assert code in (0, -signal.SIGKILL), (folder.parent / "log").read_text()
    hits[point] += code != 0
    return code != 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _, _, place, seed, *words = sys.argv
        if place:
            POINTS[place](random.Random(int(seed)))
        mgrpo(words)
    else:
        main()
