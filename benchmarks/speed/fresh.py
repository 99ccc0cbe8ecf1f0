"""Measure in a fresh child process: Clock for seconds by part, PeakMemory for the highest resident memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MIB = 2**20


class Clock:
    """Seconds of named parts; a part may be entered many times.

    CPU seconds, of all threads, are what a busy machine falsifies least; they are kept beside those of the wall.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.cpu: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block.

        Args:
            name: Of the part it belongs to.
        """
        started, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started
            self.cpu[name] += time.process_time() - cpu


class PeakMemory:
    """The highest resident memory of this process since the object was made, above what it was then (Linux)."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is resident now
        self._before = _status("VmRSS")

    def rise(self) -> int:
        """In bytes."""
        return _status("VmHWM") - self._before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)


MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(4 * MIB), "THP_MEM_ALLOC_ENABLE": "1"}
"""Environment in which freed memory returns to the system (docs/performance.md, "The memory plan")."""


def run(module: str, arguments: dict[str, Any], *, variables: Mapping[str, str] = MAPPED) -> dict[str, Any]:
    """What a fresh process measures: ``report`` is its last word.

    Args:
        module: To run with ``python -m``; it is given the arguments as one JSON text.
        arguments: For it.
        variables: Of its environment, besides this process's own.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **variables}
    child = subprocess.run(
        [sys.executable, "-m", module, json.dumps(arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def report(figures: dict[str, Any]) -> None:
    """Hand figures from a child to ``run``.

    Args:
        figures: What JSON can hold.
    """
    print(json.dumps(figures), flush=True)
