"""ResumeLog: append finished turns and calls of a step to a file with checksums, for a killed run to read back.

Under the ``eager`` schedule, playing a step a second time gives other tokens. A resumed run therefore reads recorded
turns and tool results from the log where ids, settings and calls are equal, and plays on from there. So no finished
work is lost, and fast rollouts are not preferred over slow ones.

The log has one line per turn or call: a checksum and JSON. Lines are only appended. Each line reaches the operating
system at once, so a killed process loses none. A crash of the machine may lose the last lines; their turns are played
again. Lines that other processes already know of are fsynced first and never lost. Each line also records the play time
of the step so far, which keeps the time of killed runs.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mgrpo_lightning.persistence.atomic import unwritten

VERSION = 2
"""Version of the format."""
FOLDER = "resume_logs"
"""Folder of the resume logs, in a run folder."""
KEPT = "all finished turns are kept"
_NAME = re.compile(r"(step|held-out)-(\d+)(?:-\d+)?")


def key_of(*parts: object) -> str:
    """Hash objects to a key; their ``repr`` must contain everything that identifies them.

    Args:
        *parts: Numbers, strings, tuples, dataclasses of them.
    """
    return blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def training_log_path(folder: Path, step: int, *, rank: int = 0) -> Path:
    """Return the resume log file of a training step.

    Args:
        folder: Folder of the resume logs.
        rank: Rank; each has its own file.
    """
    return folder / (f"step-{step:06d}-{rank}.jsonl" if rank else f"step-{step:06d}.jsonl")


def held_out_log_path(folder: Path, step: int, *, rank: int = 0) -> Path:
    """Return the resume log file of held-out questions.

    Args:
        folder: Folder of the resume logs of a run, or of a command.
        step: Number of steps done before the validation.
        rank: Rank; each has its own file.
    """
    return folder / (f"held-out-{step:06d}-{rank}.jsonl" if rank else f"held-out-{step:06d}.jsonl")


def remove_closed(folder: Path, done: int) -> None:
    """Remove the resume logs that a checkpoint made unnecessary, and the folder if it is empty then.

    Args:
        folder: Folder of the resume logs of a run.
        done: Number of steps whose update, and the validation after it, are in a checkpoint; 0 without a checkpoint.
    """
    for path in folder.glob("*.jsonl") if done else ():
        # Training step n is in a checkpoint of n + 1 steps; a validation after n steps in one of n steps.
        if (match := _NAME.fullmatch(path.stem)) and int(match[2]) < done + (match[1] == "held-out"):
            path.unlink(missing_ok=True)
    remove_if_empty(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder of resume logs if it exists and is empty."""
    with suppress(OSError):  # it holds something, or is gone, or another rank removes it
        folder.rmdir()


class ResumeLog:
    """The resume log of one step: finished turns and calls by key.

    Args:
        path: The log file. If its identity matches, its lines are restored; otherwise it is replaced. Lines after a
            torn or damaged one are dropped, and their turns are played again.
        identity: Hash of everything that must match for old lines to count, above all the adapters.
        others: Log files of other ranks; their lines are restored too if the identity matches.

    Raises:
        MgrpoError: The file cannot be written (also in ``put``). It is never an OSError: inside a tool call, that would
            be taken for a failure of the tool.
    """

    def __init__(self, path: Path, identity: str, *, others: Iterable[Path] = ()) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self.found = 0
        """Number of restored turns and calls."""
        self.seconds = 0.0
        """Play time in seconds up to the last restored line."""
        self._opened = time.monotonic()
        head = {"version": VERSION, "identity": identity}
        for other in others:
            self._load(other, head)
        length = self._load(path, head)
        self.found = len(self._known)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: when put() returns, the operating system has the line.
            self._file = open(path, "r+b" if length else "wb", buffering=0)  # noqa: SIM115 - open until close()
            # Cut a torn last line, or the next line would be appended to it.
            self._file.truncate(length)
            self._file.seek(length)
        except OSError as error:
            raise unwritten(error, self._path, KEPT) from error
        if not length:
            self._append(head)

    def get(self, key: str) -> Any | None:
        """Return the value that an earlier process recorded; None if there is none."""
        return self._known.get(key)

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Record a finished turn or call. ``get`` of this process does not return it.

        Args:
            value: Values that JSON can hold; floats are restored bit for bit.
        """
        self._append({"key": key, "value": value, "seconds": round(self.seconds + time.monotonic() - self._opened, 3)})

    def sync(self) -> None:
        """Write all recorded lines to the disk (fsync), so that they survive a crash of the machine."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritten(error, self._path, KEPT) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _append(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, separators=(",", ":")).encode()
        line = memoryview(b"%08x %s\n" % (zlib.crc32(text), text))
        try:
            while line:  # an unbuffered write may be short
                line = line[self._file.write(line) :]
        except OSError as error:
            raise unwritten(error, self._path, KEPT) from error

    def _load(self, path: Path, head: Mapping[str, Any]) -> int:
        """Restore the lines of a file with this head; return the length of the valid part in bytes."""
        records, length = whole_lines(path)
        if records[:1] != [head]:
            return 0
        self._known |= {record["key"]: record["value"] for record in records[1:]}
        self.seconds = max(self.seconds, records[-1].get("seconds", 0.0))
        return length


def whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read a log up to the first torn or damaged line; return the records and the length of that part in bytes.

    The first record is the head. The others are ``{"key": ..., "value": ..., "seconds": ...}``.

    Args:
        path: A resume log; a missing file is empty.
    """
    records: list[dict[str, Any]] = []
    length = 0
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for line in lines:
        if (record := _record(line)) is None:
            break
        records.append(record)
        length += len(line)
    return records, length


def _record(line: bytes) -> dict[str, Any] | None:
    """Parse a line; None if it is torn or damaged."""
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    return json.loads(text)  # type: ignore[no-any-return]
