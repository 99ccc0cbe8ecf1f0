"""Kill benchmark: kill runs at named points or random times, resume; nothing may be lost, doubled or changed.

    python -m benchmarks.faults.kill [--decoupled] [--kills 50] [--schedules rounds eager] [--tmpdir /dev/shm]
                                     [--record [NAME]]

A small quickstart team. A run is killed again and again on its way: at a random time, or inside of one of the named
points (in the middle of a turn, of a backward pass, of writing a checkpoint, ...), which the child process patches into
itself. At its end,

- under ``rounds``, adapters, optimizer state and rewards must be bitwise those of a run that was never killed, and
  every step's journal must hold the same trajectories, each once;
- under ``eager``, every turn that was finished before a kill must stand in the journal of its step, every rollout must
  be there once, and ``mgrpo replay`` must compute bitwise the same adapters.

With ``--decoupled`` every role is a process of its own, and either is killed and resumed while the other goes on: see
``kill_roles.py``. Prints the hits of every point.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.faults.kill_points import EAGER_POINTS, POINTS
from benchmarks.faults.kill_roles import RolesKiller
from benchmarks.faults.kill_runs import BY_TIME, EXPECTED, STEPS, Kills, Turn, finished_turns, record, start
from benchmarks.records import add_option, keep
from benchmarks.tables import markdown

NAME = "faults/kill"


class Killer(Kills):
    """Kills runs of one process, each on its way to the end.

    Args:
        root: Folder of the runs.
        schedule: Of their play.
        environment: Of the children.
        chance: Decides where and when.
    """

    def __init__(self, root: Path, schedule: str, environment: dict[str, str], chance: random.Random) -> None:
        points = EAGER_POINTS if schedule == "eager" else POINTS
        super().__init__(root, schedule, environment, chance, points=points, faults=("lost", "doubled", "different"))

    def kill(self, kills: int) -> None:
        """Kill until there are that many, and look at every run that came to its end.

        Args:
            kills: How many.
        """
        started = time.monotonic()
        self._finish(self.root / "straight")
        length = time.monotonic() - started
        while self.hits.total() < kills:
            folder = self.root / f"killed-{self.runs}"
            self.runs += 1
            finished: dict[int, Counter[Turn]] = {}
            while self.hits.total() < kills and self._attempt(folder, length):
                for step, turns in finished_turns(folder).items():
                    finished[step] = finished.get(step, Counter()) | turns
                print(f"{self.schedule}: {self.hits.total()} kills, {self.runs} runs", end="\r", flush=True)
            self._finish(folder)
            self._look_at(folder, finished)

    def _finish(self, folder: Path) -> None:
        """Let a run come to its end, if it has not."""
        if not (folder / "checkpoints" / f"step={STEPS:06d}.ckpt").exists():
            assert start(folder, self.environment, self.schedule).wait() == 0, (self.root / "log").read_text()

    def _attempt(self, folder: Path, length: float) -> bool:
        """Start or resume a run that is to die at the point with the fewest hits; whether it did."""
        process, point = self.start(folder)
        if point == BY_TIME:
            try:
                process.wait(self.chance.uniform(0, length))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        code = process.wait()
        assert code in (0, -signal.SIGKILL), (self.root / "log").read_text()
        self.hits[point] += code != 0
        return code != 0

    def _look_at(self, folder: Path, finished: dict[int, Counter[Turn]]) -> None:
        """Count what is wrong with a run that has come to its end."""
        steps = record(folder)["steps"]
        for step in range(STEPS):
            keys = Counter(key for key, *_ in steps.get(f"step-{step:06d}.parquet", []))
            mains = {key[1:3] for key in keys if key.invocation == 0}
            self.faults["lost"] += len(EXPECTED - mains)
            self.faults["doubled"] += keys.total() - len(keys)
        self.count_lost(finished, steps)
        self.count_different(folder)


def table(*results: Mapping[str, Any]) -> str:
    """Hits of every point, runs and faults, in Markdown, a column for each kind of run and schedule.

    Args:
        results: Of ``main``.
    """
    found = {name: one for result in results for name, one in result.items()}

    def lines(part: str) -> list[tuple[object, ...]]:
        names = dict.fromkeys(name for one in found.values() for name in one[part])
        return [(name, *(one[part].get(name, "-") for one in found.values())) for name in names]

    runs = ("runs", *(one["runs"] for one in found.values()))
    return markdown(("point", *found), [*lines("hits"), runs, *lines("faults")])


def main() -> None:
    """Kill, resume, look, and print the hits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoupled", action="store_true", help="run each role in its own process")
    parser.add_argument("--kills", type=int, default=50, help="number of kills for each schedule")
    parser.add_argument("--schedules", nargs="+", choices=["rounds", "eager"], default=["rounds", "eager"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tmpdir", help="$TMPDIR of the runs, for example on another device than the run folder")
    add_option(parser, NAME)
    arguments = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if arguments.tmpdir:
        environment["TMPDIR"] = arguments.tmpdir
    kind, title = (RolesKiller, "roles apart") if arguments.decoupled else (Killer, "one process")
    killers = {}
    for schedule in arguments.schedules:
        with tempfile.TemporaryDirectory() as root:
            killer = kind(Path(root), schedule, environment, random.Random(arguments.seed))
            killer.kill(arguments.kills)
        killers[f"{title}, {schedule}"] = killer
    result = {name: {"hits": k.hits, "runs": k.runs, "faults": k.faults} for name, k in killers.items()}
    print(f"\n{table(result)}")
    keep(arguments.record, result, threads=1)
    if any(k.faults.total() or 0 in k.hits.values() for k in killers.values()):
        raise SystemExit("a record was lost, duplicated or changed, or a kill point was never reached")


if __name__ == "__main__":
    main()
