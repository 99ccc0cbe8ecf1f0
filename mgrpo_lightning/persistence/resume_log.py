"""The open step: what is finished of a step in play, on disk at once, so that a killed run need not do it again.

Under the ``eager`` schedule a second play says other things than the first. So that nothing finished is lost, and no
rollout is preferred because it was quick, a resumed run says recorded turns and tool results again where the same ids,
settings and calls come up, and plays on from there.

A file of lines, one for each turn or call: a checksum and JSON. It is only ever appended to. Lines reach the operating
system at once, so a killed process loses none. A crash of the machine may lose the last ones, which are then played; it
loses none that other processes have heard of. Each says how long the step had been in play, so that the time of those
who were killed is not lost either.
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
"""Of the format."""
FOLDER = "open_steps"
"""Of all open steps of a run, in its folder."""
KEPT = "finished turns are kept"
_NAME = re.compile(r"(step|held-out)-(\d+)(?:-\d+)?")


def key_of(*parts: object) -> str:
    """A key from anything whose ``repr`` says all that identifies it.

    Args:
        *parts: Numbers, texts, tuples, dataclasses of them.
    """
    return blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def open_path(folder: Path, step: int, *, rank: int = 0) -> Path:
    """The file of a step.

    Args:
        folder: Of all open steps of a run.
        step: Training step.
        rank: Each has a file of its own.
    """
    return folder / (f"step-{step:06d}-{rank}.jsonl" if rank else f"step-{step:06d}.jsonl")


def held_out_path(folder: Path, step: int, *, rank: int = 0) -> Path:
    """The file of what is played of held-out questions.

    Args:
        folder: Of all open steps of a run, or of a command that plays nothing else.
        step: Steps done before the validation.
        rank: Each has a file of its own.
    """
    return folder / (f"held-out-{step:06d}-{rank}.jsonl" if rank else f"held-out-{step:06d}.jsonl")


def remove_closed(folder: Path, done: int) -> None:
    """Remove what a checkpoint has made unnecessary, and the folder with the last of it.

    Args:
        folder: Of all open steps of a run.
        done: Steps whose update, and the validation behind it, are in a checkpoint on disk; 0: there is none.
    """
    for path in folder.glob("*.jsonl") if done else ():
        if (match := _NAME.fullmatch(path.stem)) and int(match[2]) < done + (match[1] == "held-out"):
            path.unlink(missing_ok=True)
    remove_if_empty(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder of open steps that holds none, if it is there.

    Args:
        folder: Of all open steps of a run.
    """
    with suppress(OSError):  # it holds something, or is gone, or another rank removes it
        folder.rmdir()


class OpenStep:
    """Finished work of one step, by key.

    Args:
        path: Its file; what stands there is taken up if it is of the same identity, and replaced otherwise. Lines
            behind a torn or damaged one are dropped: what they held is played again.
        identity: All that must be the same for old work to count, the adapters above all.
        others: Files of other ranks, from which is taken up what is of the same identity.

    Raises:
        MgrpoError: The file cannot be written (also from ``put``). Never an OSError: in the middle of a call, that
            would be taken for a failure of the call.
    """

    def __init__(self, path: Path, identity: str, *, others: Iterable[Path] = ()) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self.found = 0
        """Turns and calls that stood in the files."""
        self.seconds = 0.0
        """For how long they had been played when the last of them was finished."""
        self._opened = time.monotonic()
        head = {"version": VERSION, "identity": identity}
        for other in others:
            self._load(other, head)
        length = self._load(path, head)
        self.found = len(self._known)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a line is with the operating system when put() returns.
            self._file = open(path, "r+b" if length else "wb", buffering=0)  # noqa: SIM115 - open until close()
            self._file.truncate(length)
            self._file.seek(length)
        except OSError as error:
            raise unwritten(error, self._path, KEPT) from error
        if not length:
            self._append(head)

    def get(self, key: str) -> Any | None:
        """What an earlier life put there, None if nothing was.

        Args:
            key: From ``key_of``.
        """
        return self._known.get(key)

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Record something that is finished; nobody asks for it again in this life.

        Args:
            key: From ``key_of``.
            value: What JSON can hold; floats come back bit for bit.
        """
        self._append({"key": key, "value": value, "seconds": round(self.seconds + time.monotonic() - self._opened, 3)})

    def sync(self) -> None:
        """Put what was put down on the disk, so that it outlives a crash of the machine as well."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritten(error, self._path, KEPT) from error

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
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
        """Take up the lines of a file with this head; the length of what is whole."""
        records, length = whole_lines(path)
        if records[:1] != [head]:
            return 0
        self._known |= {record["key"]: record["value"] for record in records[1:]}
        self.seconds = max(self.seconds, records[-1].get("seconds", 0.0))
        return length


def whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """What stands in a file up to the first torn or damaged line, and how many bytes that is.

    The first record is the head, the others are ``{"key": ..., "value": ..., "seconds": ...}``.

    Args:
        path: Of an open step; a missing one is empty.
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
    """What a line holds, None if it is not whole."""
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    return json.loads(text)  # type: ignore[no-any-return]
