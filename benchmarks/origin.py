"""Where the result of a benchmark comes from: the machine, the versions, the commit, the command and the day."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "peft", "trl", "lightning", "bitsandbytes")
INSTRUCTIONS = {"avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX"}
"""What multiplies in bfloat16, by its name in /proc/cpuinfo."""
WRITTEN = (":!benchmarks/records.jsonl.xz", ":!docs")
"""What records and reports change; a tree that differs from its commit there alone counts as clean."""


def origin(threads: int) -> dict[str, Any]:
    """What a record has besides the result.

    Args:
        threads: Of each process that was measured.
    """
    return {
        "machine": {**machine(), "threads": threads},
        "versions": versions(),
        "commit": commit(),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def machine() -> dict[str, Any]:
    """CPU model, cores, whether ``INSTRUCTIONS`` are there, and memory in GiB (Linux)."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines())
    cpu = {name.strip(): value.strip() for name, _, value in lines}
    numbers = [f"{name} {cpu[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in cpu]
    flags = cpu.get("flags", "").split()
    return {
        "cpu": ", ".join([cpu.get("model name", platform.machine()), *numbers]),
        "cores": os.cpu_count(),
        **{name: name in flags for name in INSTRUCTIONS},
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
    }


def versions() -> dict[str, str]:
    """Of Python and of those ``PACKAGES`` that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Short hash of the commit, with ``+`` if tracked files differ from it; None outside of a repository."""
    try:
        found = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *WRITTEN)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{found}+" if changed else found


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()


def where(record: Mapping[str, Any]) -> str:
    """Machine and versions of a record in one line, as the pages say them.

    Args:
        record: With what ``origin`` has.
    """
    found = record["machine"]
    has = [f"{'' if found[name] else 'no '}{title}" for name, title in INSTRUCTIONS.items()]
    parts = [found["cpu"], f"{found['cores']} cores", *has, f"{found['memory_gib']} GiB"]
    return f"{', '.join(parts)}; {', '.join(f'{name} {version}' for name, version in record['versions'].items())}"


def when(record: Mapping[str, Any]) -> str:
    """Command, number of threads, commit and day of a record in one line.

    Args:
        record: With what ``origin`` has.
    """
    threads = record["machine"]["threads"]
    made = f"commit {record['commit'] or 'unknown'}, {record['date']}"
    return f"`{record['command']}`, {threads} thread{'' if threads == 1 else 's'}, {made}"
