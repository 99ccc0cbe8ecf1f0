"""Decoupled benchmark: a quickstart step in one process and in one for each role: seconds and idle shares.

    python -m benchmarks.speed.decoupled [--steps 8] [--arms ...] [--record [NAME]]

Arms: ``coupled`` (one process, a thread a core); ``decoupled`` (a process and half of the cores a role, otherwise the
same: bitwise the same run); ``searcher 1 late`` and ``both 1 late`` (the same with ``lag: 1``, whose updates fill what
the play waits). Arms run one after the other; the first two steps of each do not count. *step* is the median of main's
play and update; *idle* is the share of that in which a role's process had nothing to compute.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.records import add_option, keep
from benchmarks.runs import read_scalars
from benchmarks.tables import markdown

NAME = "speed/decoupled"
ROLES = ("main", "searcher")
LAG = "--model.roles.{}.lag=1"
ARMS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "coupled": (False, ()),
    "decoupled": (True, ()),
    "searcher 1 late": (True, (LAG.format("searcher"),)),
    "both 1 late": (True, tuple(map(LAG.format, ROLES))),
}
"""Whether roles have processes of their own, and options."""
SKIPPED = 2
"""Steps that do not count: the first ones load and warm up, and have no update of a late role."""


def run(folder: Path, steps: int, *, decoupled: bool, options: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Seconds of a run by process: medians over its steps of ``play``, ``idle`` and ``update``.

    Args:
        folder: Of the run.
        steps: How many.
        decoupled: A process a role.
        options: Of the fit.
    """
    command = [
        *(sys.executable, "-m", "mgrpo_lightning", "fit", "--config", "configs/quickstart.yaml"),
        *(f"--run.root={folder.parent}", f"--run.name={folder.name}", f"--trainer.max_steps={steps}", *options),
        *("--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"),
    ]
    roles = ROLES if decoupled else (None,)
    threads = max(1, (os.cpu_count() or 1) // len(roles))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with open(folder.parent / "log", "ab") as log:
        processes = [
            subprocess.Popen([*command, *(["--role", role] if role else [])], env=environment, stdout=log, stderr=log)
            for role in roles
        ]
        codes = [process.wait() for process in processes]
    assert not any(codes), (folder.parent / "log").read_text()
    return {role or "all": _seconds(folder / (role or "")) for role in roles}


def _seconds(folder: Path) -> dict[str, float]:
    found = read_scalars(folder / "tensorboard")
    return {phase: statistics.median(found[f"seconds/{phase}"][SKIPPED:]) for phase in ("play", "idle", "update")}


def table(*results: Mapping[str, dict[str, dict[str, float]]]) -> str:
    """The steps of every arm, in Markdown; seconds are main's / the searcher's.

    Args:
        results: Of ``main``.
    """
    figures = {arm: found for result in results for arm, found in result.items()}
    first = _step(next(iter(figures.values())))
    rows = []
    for arm, found in figures.items():
        play, update = (" / ".join(f"{one[phase]:.2f}" for one in found.values()) for phase in ("play", "update"))
        idle = " / ".join(f"{one['idle'] / (one['play'] + one['update']):.0%}" for one in found.values())
        rows.append((arm, f"{_step(found):.2f}", f"{_step(found) / first:.2f}", play, update, idle))
    return markdown(("roles", "step, s", "to the first", "play, s", "update, s", "idle"), rows)


def _step(found: dict[str, dict[str, float]]) -> float:
    first = next(iter(found.values()))
    return first["play"] + first["update"]


def main() -> None:
    """Run every arm and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    add_option(parser, NAME)
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as root:
        for arm in arguments.arms:
            decoupled, options = ARMS[arm]
            name = arm.replace(" ", "_")
            figures[arm] = run(Path(root) / name, arguments.steps, decoupled=decoupled, options=options)
            print(f"{arm} measured", flush=True)
    print(table(figures))
    keep(arguments.record, figures, threads=os.cpu_count() or 1)


if __name__ == "__main__":
    main()
