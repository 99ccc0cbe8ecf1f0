"""Kill benchmark for decoupled roles: kill and resume either process while the other goes on; compare their journals.

Both processes of a run are always on their way to a named point or a random time, at which they die; whichever does is
resumed at once, until there have been enough kills. At the end of a run, besides what is asked of one process,

- every call that main made must have been played, once, and nothing else: *lost* and *doubled*;
- the report that main read must be that of the trajectory which the searcher trains on, and the outcome that the
  searcher trains on main's: otherwise they are *mispaired*;
- under ``rounds`` either role must be bitwise what it is in a run in one process that nobody killed; under ``eager``
  ``mgrpo replay`` must compute bitwise the same adapters of either.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.faults.kill_points import EAGER_POINTS, POINTS, STORE_POINTS
from benchmarks.faults.kill_runs import BY_TIME, EXPECTED, STEPS, Kills, Turn, finished_turns, record, start
from mgrpo_lightning.records.journal import read_groups
from mgrpo_lightning.records.trajectory import Rollout

ROLES = ("main", "searcher")
LONGEST = 600.0
"""Seconds that a run may take without a kill or an end."""


class RolesKiller(Kills):
    """Kills runs of two processes.

    Args:
        root: Folder of the runs.
        schedule: Of their play.
        environment: Of the children.
        chance: Decides where and when.
    """

    def __init__(self, root: Path, schedule: str, environment: dict[str, str], chance: random.Random) -> None:
        points = (EAGER_POINTS if schedule == "eager" else POINTS) | STORE_POINTS
        faults = ("lost", "doubled", "mispaired", "different")
        super().__init__(root, schedule, environment, chance, points=points, faults=faults)

    def kill(self, kills: int) -> None:
        """Kill until there are that many, and look at every run that came to its end.

        Args:
            kills: How many, of both roles together.
        """
        if self.schedule == "rounds":
            straight = start(self.root / "straight", self.environment, self.schedule)
            assert straight.wait() == 0, (self.root / "log").read_text()
        while self.hits.total() < kills:
            folder = self.root / f"killed-{self.runs}"
            self.runs += 1
            self._look_at(folder, self._run(folder, kills))

    def _run(self, folder: Path, kills: int) -> dict[str, dict[int, Counter[Turn]]]:
        """Bring a run to its end; the turns that were finished before a kill, by role and step."""
        finished: dict[str, dict[int, Counter[Turn]]] = {role: {} for role in ROLES}
        children = {role: self._child(folder, role, kills) for role in ROLES}
        last = time.monotonic()
        while children:
            for role, child in list(children.items()):
                code = child.poll()
                if code is None:
                    continue
                last = time.monotonic()
                assert code in (0, -signal.SIGKILL), (self.root / "log").read_text()
                if code == 0:
                    del children[role]
                    continue
                self.hits[child.point] += 1
                for step, turns in finished_turns(folder / role).items():
                    finished[role][step] = finished[role].get(step, Counter()) | turns
                print(f"{self.schedule}: {self.hits.total()} kills, {self.runs} runs", end="\r", flush=True)
                children[role] = self._child(folder, role, kills)
            assert time.monotonic() - last < LONGEST, f"no progress: {(self.root / 'log').read_text()[-3000:]}"
            time.sleep(0.02)
        return finished

    def _child(self, folder: Path, role: str, kills: int) -> _Child:
        """Start or resume a role, which may live if there have been enough kills."""
        if self.hits.total() >= kills:
            return _Child(start(folder, self.environment, self.schedule, role=role), "", float("inf"))
        process, point = self.start(folder, role)
        return _Child(process, point, self.chance.uniform(2, 30) if point == BY_TIME else float("inf"))

    def _look_at(self, folder: Path, finished: dict[str, dict[int, Counter[Turn]]]) -> None:
        for step in range(STEPS):
            self._compare(*(_rollouts(folder / role, step) for role in ROLES))
        for role in ROLES:
            self.count_lost(finished[role], record(folder / role, role)["steps"])
            self.count_different(folder / role, role)

    def _compare(self, mains: dict[Any, Rollout], searchers: dict[Any, Rollout]) -> None:
        """One step as main's process has it, and as the searcher's has it."""
        self.faults["lost"] += len(EXPECTED - mains.keys()) + len(EXPECTED - searchers.keys())
        for place, one in mains.items():
            if place not in searchers:
                continue
            other = searchers[place]
            calls = Counter(call.invocation for call in one.main.calls if call.invocation is not None)
            played = Counter(sub.key.invocation for sub in other.subs)
            self.faults["lost"] += (calls - played).total()
            self.faults["doubled"] += (played - calls).total()
            reports = {call.invocation: call.result for call in one.main.calls if not call.failed}
            for sub in other.subs:
                report = reports.get(sub.key.invocation)
                self.faults["mispaired"] += report is not None and sub.answer is not None and sub.answer not in report
            self.faults["mispaired"] += one.scores[0].correct != other.scores[0].correct


class _Child:
    """One life of a role."""

    def __init__(self, process: subprocess.Popen[bytes], point: str, seconds: float) -> None:
        self.point = point
        self._process = process
        self._until = time.monotonic() + seconds

    def poll(self) -> int | None:
        """Its exit status once it has ended; killed when its time has come."""
        if time.monotonic() > self._until:
            self._process.kill()
            return self._process.wait()
        return self._process.poll()


def _rollouts(folder: Path, step: int) -> dict[Any, Rollout]:
    """Of one step, by query and rollout."""
    path = folder / "journal" / f"step-{step:06d}.parquet"
    return {rollout.main.key[1:3]: rollout for group in read_groups(path) for rollout in group.rollouts}
