"""``mgrpo store RUN``: show a store's writers, which are alive, the step of each role, and damaged or missing files."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.store.arrow_files import Unreadable, read_segment, segments
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.layout import (
    BEAT,
    FOLDER,
    Alive,
    check_folder,
    incarnation_folder,
    incarnations,
    read_alive,
    writers,
)
from mgrpo_lightning.store.record import KINDS


@dataclass
class WriterStatus:
    """Status of one writer, read from its folder."""

    name: str
    incarnation: int
    """Number of the latest incarnation that has started; 0: none."""
    alive: Alive | None
    num_files: int = 0
    num_bytes: int = 0
    records: Counter[str] = field(default_factory=Counter)
    """Number of records by kind (record kind)."""
    step: int = -1
    """Highest step of any record; -1: no record has a step."""
    problems: list[str] = field(default_factory=list)
    """One line for each unreadable or missing file."""


def examine(root: Path, disk: Disk | None = None) -> list[WriterStatus]:
    """Read a whole store and return the status of each writer.

    Args:
        root: Folder of the store.
        disk: Access to the filesystem; None uses the real one.

    Raises:
        DataError: There is no store.
    """
    disk = disk or Disk()
    check_folder(disk, root)
    return [_writer(disk, root / "writers" / name) for name in writers(disk, root)]


def _writer(disk: Disk, home: Path) -> WriterStatus:
    # An incarnation without a heartbeat file did not start completely; its records may be incomplete.
    begun = [n for n in incarnations(disk, home) if read_alive(disk, incarnation_folder(home, n))]
    if not begun:
        return WriterStatus(home.name, 0, None)
    folder = incarnation_folder(home, begun[-1])
    alive = read_alive(disk, folder)
    found = WriterStatus(home.name, begun[-1], alive)
    place = alive.start if alive else 0
    for segment in segments(disk, folder):
        if segment.last < place:  # below the writer's start: it may remove these files at any time
            continue
        if segment.first > place:
            # Segments cover all record numbers, so a gap is a lost file.
            found.problems.append(f"{folder}: records {place} to {segment.first - 1} are missing")
        place = segment.last + 1
        try:
            numbered = read_segment(disk, folder, segment)
        except (Unreadable, DataError) as error:
            found.problems.append(str(error))
            continue
        found.num_files += 1
        found.num_bytes += (folder / segment.name).stat().st_size
        found.records.update(record.kind for record in numbered.values())
        found.step = max([found.step, *(record.key.step for record in numbered.values())])
    return found


def beating(root: Path, before: Sequence[WriterStatus], seconds: float, disk: Disk | None = None) -> set[str]:
    """Wait, and return the names of the writers whose heartbeat counter has grown since ``examine``.

    The counter decides, not file times, because clocks of several machines may differ.

    Args:
        root: Folder of the store.
        seconds: Seconds to wait; must be longer than ``BEAT``, the heartbeat interval.
        disk: Access to the filesystem; None uses the real one.
    """
    time.sleep(seconds)
    return {
        status.name
        for status in before
        if status.alive
        and (now := read_alive(disk or Disk(), incarnation_folder(root / "writers" / status.name, status.incarnation)))
        and now.beat > status.alive.beat
    }


def table(statuses: Sequence[WriterStatus], living: set[str]) -> Table:
    """Make a table with one column for each writer.

    Args:
        living: Names of the living writers, from ``beating``.
    """
    shown = Table("", *(status.name for status in statuses))
    lines: dict[str, Callable[[WriterStatus], object]] = {
        "alive": lambda status: "yes" if status.name in living else "no",
        "starts": lambda status: status.incarnation,
        "step": lambda status: status.step if status.step >= 0 else "",
        **{kind: partial(_count, kind) for kind in KINDS},
        "files": lambda status: status.num_files,
        "KiB": lambda status: f"{status.num_bytes / 1024:,.0f}",
    }
    for name, value in lines.items():
        shown.add_row(name, *(str(value(status)) for status in statuses))
    for name in sorted({name for status in statuses if status.alive for name in status.alive.state}):
        states = [status.alive.state if status.alive else {} for status in statuses]
        shown.add_row(f"current {name}".replace("_", " "), *(str(state.get(name, "")) for state in states))
    return shown


def _count(kind: str, status: WriterStatus) -> str:
    return f"{status.records[kind]:,}"


def main(args: Sequence[str]) -> None:
    """Entry point of ``mgrpo store``.

    Args:
        args: Command line after ``mgrpo store``.

    Raises:
        SystemExit: With 1 if a file is damaged or missing.
    """
    parser = argparse.ArgumentParser("mgrpo store")
    parser.add_argument("run", type=Path, help="run folder of a decoupled run, or its store")
    parser.add_argument("--wait", type=float, default=1.5 * BEAT, help="seconds to wait for heartbeats")
    arguments = parser.parse_args(args)
    root = next(_stores(arguments.run))
    statuses = examine(root)
    Console().print(table(statuses, beating(root, statuses, arguments.wait)))
    problems = [problem for status in statuses for problem in status.problems]
    for problem in problems:
        print(problem)
    print(
        "all files are complete"
        if not problems
        else f"{len(problems)} problems: restart the roles that wrote these files"
    )
    if problems:
        raise SystemExit(1)


def _stores(run: Path) -> Iterator[Path]:
    if (run / FOLDER).is_dir():
        yield run / FOLDER
    yield run
