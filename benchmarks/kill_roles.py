"""The kill benchmark for roles in processes of their own: either is killed and resumed while the other goes on.

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
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import kill_runs
from benchmarks.kill_points import EAGER_POINTS, POINTS, STORE_POINTS
from mgrpo_lightning.journal import read_groups
from mgrpo_lightning.trajectory import Rollout

ROLES = ("main", "searcher")
LONGEST = 600.0
"""Seconds that a run may take without a kill or an end."""


class RolesKiller:
    """Kills runs of one schedule and counts; see ``Killer``.

    Args:
        root: Folder of the runs.
        schedule: Of their play.
        environment: Of the children.
        chance: Decides where and when.
    """

    def __init__(self, root: Path, schedule: str, environment: dict[str, str], chance: random.Random) -> None:
        self.schedule = schedule
        self._root = root
        self._environment = environment
        self._chance = chance
        points = [*(EAGER_POINTS if schedule == "eager" else POINTS), *STORE_POINTS]
        self.hits: Counter[str] = Counter(dict.fromkeys([kill_runs.BY_TIME, *points], 0))
        self.faults: Counter[str] = Counter({"lost": 0, "doubled": 0, "mispaired": 0, "different": 0})
        self.runs = 0

    def kill(self, kills: int) -> None:
        """Kill until there are that many, and look at every run that came to its end.

        Args:
            kills: How many, of both roles together.
        """
        if self.schedule == "rounds":
            straight = kill_runs.start(self._root / "straight", self._environment, self.schedule)
            assert straight.wait() == 0, (self._root / "log").read_text()
        while self.hits.total() < kills:
            folder = self._root / f"killed-{self.runs}"
            self.runs += 1
            self._look_at(folder, self._run(folder, kills))

    def _run(self, folder: Path, kills: int) -> dict[str, dict[int, Counter[kill_runs.Turn]]]:
        """Bring a run to its end; the turns that were finished before a kill, by role and step."""
        finished: dict[str, dict[int, Counter[kill_runs.Turn]]] = {role: {} for role in ROLES}
        children = {role: _Child(self, folder, role, kills) for role in ROLES}
        last = time.monotonic()
        while children:
            for role, child in list(children.items()):
                code = child.poll()
                if code is None:
                    continue
                last = time.monotonic()
                assert code in (0, -signal.SIGKILL), (self._root / "log").read_text()
                if code == 0:
                    del children[role]
                    continue
                self.hits[child.point] += 1
                for step, turns in kill_runs.finished_turns(folder / role).items():
                    finished[role][step] = finished[role].get(step, Counter()) | turns
                print(f"{self.schedule}: {self.hits.total()} kills, {self.runs} runs", end="\r", flush=True)
                children[role] = _Child(self, folder, role, kills)
            assert time.monotonic() - last < LONGEST, f"nothing happens: {(self._root / 'log').read_text()[-3000:]}"
            time.sleep(0.02)
        return finished

    def start(self, folder: Path, role: str, kills: int) -> tuple[subprocess.Popen[bytes], str, float]:
        """Start or resume a role that is to die at the point with the fewest hits; that point, and when to kill it.

        Args:
            folder: Of the run.
            role: Which.
            kills: From this number of them on it may live.
        """
        if self.hits.total() >= kills:
            return kill_runs.start(folder, self._environment, self.schedule, role=role), "", float("inf")
        rarest = min(self.hits.values())
        point = self._chance.choice([point for point, count in self.hits.items() if count == rarest])
        patched = "" if point == kill_runs.BY_TIME else point
        process = kill_runs.start(folder, self._environment, self.schedule, patched, self._chance.getrandbits(30), role)
        return process, point, self._chance.uniform(2, 30) if point == kill_runs.BY_TIME else float("inf")

    def _look_at(self, folder: Path, finished: dict[str, dict[int, Counter[kill_runs.Turn]]]) -> None:
        for step in range(kill_runs.STEPS):
            self._compare(*(_rollouts(folder / role, step) for role in ROLES))
        for role in ROLES:
            found = kill_runs.record(folder / role, role)
            for step, turns in finished[role].items():
                spans = [span for _, spans, *_ in found["steps"][f"step-{step:06d}.parquet"] for span in spans]
                said = Counter((span.ids, span.logprobs) for span in spans if span.kind == "action")
                self.faults["lost"] += (turns - said).total()
            if self.schedule == "rounds":
                straight = kill_runs.record(self._root / "straight", role)
                self.faults["different"] += not kill_runs.same(found, straight)
            else:
                command = [sys.executable, "-m", "mgrpo_lightning", "replay", str(folder / role)]
                with open(self._root / "log", "ab") as log:
                    different = subprocess.call(command, env=self._environment, stdout=log, stderr=log)
                self.faults["different"] += bool(different)

    def _compare(self, mains: dict[Any, Rollout], searchers: dict[Any, Rollout]) -> None:
        """One step as main's process has it, and as the searcher's has it."""
        self.faults["lost"] += len(kill_runs.EXPECTED - mains.keys()) + len(kill_runs.EXPECTED - searchers.keys())
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

    def __init__(self, killer: RolesKiller, folder: Path, role: str, kills: int) -> None:
        self._process, self.point, seconds = killer.start(folder, role, kills)
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
