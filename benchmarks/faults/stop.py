"""Stop benchmark: signal a launch or a role (SIGTERM, Ctrl-C, SIGKILL), resume; check exit status and leftovers.

    python -m benchmarks.faults.stop [--times 40] [--record [NAME]]

A small quickstart team under ``mgrpo launch``, schedule ``rounds``; each of its searches takes a moment. At a random
time the launch gets SIGTERM, a Ctrl-C or SIGKILL, or one role gets SIGTERM or SIGINT: in a start, while a role waits
for the other, while a tool runs, in an update. Then every process, guards included, must be gone within ``LIMIT``
seconds, and the launch must have ended with the documented status. It is started again until the run is done, which
must be bitwise what it is in one process that nobody stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from typing_extensions import override

from benchmarks.faults.kill_runs import FIT, record, same
from benchmarks.records import add_option, keep
from benchmarks.tables import markdown
from mgrpo_lightning.errors import STOPPED
from mgrpo_lightning.process.guard import KILL
from mgrpo_lightning.tasks import Factbook
from mgrpo_lightning.tools.base import Tool

NAME = "faults/stop"
ROLES = ("main", "searcher")
LIMIT = KILL + 5.0
"""Seconds from a signal to the end of the last process: the last grace, and five seconds."""
EVENTS = ("SIGTERM of the launch", "Ctrl-C", "SIGKILL of the launch", "SIGTERM of a role", "SIGINT of a role")
LONGEST = 600.0
"""Seconds of a launch that nobody stops."""


class SlowFactbook(Factbook):
    """The Factbook with tools that take a moment."""

    @override
    def tools(self) -> Mapping[str, Tool]:
        return {name: _Slow(tool) for name, tool in super().tools().items()}


class _Slow:
    def __init__(self, tool: Tool) -> None:
        self.name, self.description, self.parameters = tool.name, tool.description, tool.parameters
        self._tool = tool

    async def __call__(self, **arguments: object) -> str:
        await asyncio.sleep(0.3)
        return await self._tool(**arguments)


class Stopper:
    """Stops launches, counts what it did and what was wrong.

    Args:
        root: Folder of the runs.
        chance: Decides when and how.
    """

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.root = root
        self.chance = chance
        self.hits: Counter[str] = Counter(dict.fromkeys(EVENTS, 0))
        self.faults: Counter[str] = Counter(dict.fromkeys(("left behind", "wrong status", "different"), 0))
        self.runs = 0
        self.seconds: list[float] = []
        """From each signal to the end of the last process."""

    def stop(self, times: int) -> None:
        """Stop that often, and look at every run that came to its end.

        Args:
            times: How often.
        """
        started = time.monotonic()
        words = self._words("straight")
        assert subprocess.call([*words[:3], "fit", *words[4:]], **self._output()) == 0, self._log()
        length = time.monotonic() - started
        while self.hits.total() < times:
            name = f"stopped-{self.runs}"
            self.runs += 1
            while not self._launch(name, length if self.hits.total() < times else None):
                print(f"{self.hits.total()} stops, {self.runs} runs", end="\r", flush=True)
            for role in ROLES:
                ours = record(self.root / name / role, role)
                self.faults["different"] += not same(ours, record(self.root / "straight", role))

    def _launch(self, name: str, length: float | None) -> bool:
        """Launch a run or go on with it, and stop it within some seconds; whether it is done."""
        words = [*self._words(name), "--ckpt_path=last"]
        process = psutil.Popen(words, start_new_session=True, **self._output())
        try:
            code = process.wait(LONGEST if length is None else self.chance.uniform(0.3, 1.2 * length))
        except psutil.TimeoutExpired:
            assert length is not None, self._log()
            return self._end(process)
        assert code == 0, self._log()
        return True

    def _end(self, launch: Any) -> bool:
        """Stop a launch; whether it was done before that."""
        rarest = min(self.hits.values())
        event = self.chance.choice([name for name, count in self.hits.items() if count == rarest])
        everybody = launch.children(recursive=True)
        roles = launch.children()
        if "role" in event and not roles:
            event = EVENTS[0]
        started = time.monotonic()
        if event == "Ctrl-C":
            os.killpg(launch.pid, signal.SIGINT)
        else:
            number = signal.Signals[event.split()[0]]
            (self.chance.choice(roles) if "role" in event else launch).send_signal(number)
        _, left = psutil.wait_procs([launch, *everybody], timeout=20)
        self.seconds.append(time.monotonic() - started)
        for process in left:
            process.kill()
        code = launch.wait()
        self.hits[event] += 1
        self.faults["left behind"] += self.seconds[-1] > LIMIT
        expected = -signal.SIGKILL if event == "SIGKILL of the launch" else STOPPED
        if code not in (expected, 0):
            print(f"{event}: status {code}\n{self._log()[-2000:]}")
        self.faults["wrong status"] += code not in (expected, 0)
        return bool(code == 0)

    def _words(self, name: str) -> list[str]:
        task = "--data.task=benchmarks.faults.stop.SlowFactbook"
        names = [
            f"--run.root={self.root}",
            f"--run.name={name}",
            "--data.schedule=rounds",
            task,
            "--data.task.hops=[1,2]",
        ]
        return [sys.executable, "-m", "mgrpo_lightning", "launch", *FIT[1:], *names]

    def _output(self) -> dict[str, Any]:
        log = open(self.root / "log", "ab")  # noqa: SIM115 - for the child
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return {"stdout": log, "stderr": log, "env": environment}

    def _log(self) -> str:
        return (self.root / "log").read_text(encoding="utf-8", errors="replace")


def table(*results: Mapping[str, Any]) -> str:
    """Stops by their kind, runs, faults, and the longest time to the end of the last process, in Markdown.

    Args:
        results: Of ``main``.
    """
    columns = (*EVENTS, "runs", *results[0]["faults"], "slowest end")
    rows = [
        (
            *(result["hits"][event] for event in EVENTS),
            *(result["runs"], *result["faults"].values()),
            f"{max(result['seconds']):.1f} s",
        )
        for result in results
    ]
    return markdown(columns, rows)


def main() -> None:
    """Stop, go on, look, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser, NAME)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    with tempfile.TemporaryDirectory() as root:
        stopper = Stopper(Path(root), random.Random(arguments.seed))
        stopper.stop(arguments.times)
    faults = stopper.faults
    result = {"hits": stopper.hits, "runs": stopper.runs, "seconds": stopper.seconds, "faults": faults}
    print(f"\n{table(result)}")
    keep(arguments.record, result, threads=1)
    if stopper.faults.total():
        raise SystemExit("a process was left behind or ended with a wrong status, or a result changed")


if __name__ == "__main__":
    main()
