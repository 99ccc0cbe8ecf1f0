"""RunLock: one command of each kind at a time in a run folder; heartbeat; takeover from a dead or silent process.

    runs/quickstart/locks/fit/000003/owner.json    the third fit in this folder: host, process, start, heartbeat

A command claims the next numbered folder; ``mkdir`` succeeds in exactly one process. The highest number owns the run
folder. A process that lost the lock sees a number higher than its own, and stops before its next write. The last folder
stays, marked as ended, so numbers only grow.

On the owner's machine, process id and start time show at once whether the owner lives (ids alone are reused). On
another machine, the heartbeat shows it: the modification time of the file. Clocks of two machines are never compared; a
process only watches whether the heartbeat changes.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import psutil

from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.persistence.atomic import atomic_path, unwritten

FOLDER = "locks"
"""Folder of all locks, in a run folder."""
BEAT = 5.0
"""Seconds between two heartbeats."""
SILENCE = 60.0
"""Timeout in seconds: an owner on another machine without a heartbeat for so long is dead."""
_PROCESSES = Path("/proc")
"""Process information of Linux."""
_OWNER = "owner.json"
_NUMBER = re.compile(r"\d{6}")


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock."""

    host: str
    machine: str
    """Hostname, boot id and process namespace: process ids are unique within it."""
    pid: int
    began: float
    """Start time of the process, from ``_began``."""
    since: str
    """When it took the lock, as text for people."""
    ended: bool = False
    """Whether it has released the lock."""

    @property
    def words(self) -> str:
        """Description for error messages."""
        return f"process {self.pid} on {self.host}, since {self.since}"


class RunLock:
    """The right to write into a run folder. It is reentrant: each ``take`` needs one ``release``.

    Args:
        folder: Folder of the run or of a role.
        command: The writing command: ``fit``, ``validate``, ``test`` or ``launch``. Different commands may run side by
            side.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self._folder = folder
        self._command = command
        self._home = folder / FOLDER / command
        self._number = self._depth = 0
        self._owner: Owner | None = None
        self._ended = threading.Event()

    @property
    def taken(self) -> bool:
        """Whether this process holds the lock."""
        return self._depth > 0

    def take(self) -> None:
        """Take the lock.

        Raises:
            ConfigurationError: Another living process holds it.
            MgrpoError: The folder cannot be written.
        """
        if self._depth == 0:
            try:
                self._home.mkdir(parents=True, exist_ok=True)
                self._number = self._claim()
                self._owner = _here()
                self._write(self._owner)
                self._remove_earlier()
            except OSError as error:
                raise unwritten(error, self._home, "nothing was started") from error
            self._ended = threading.Event()
            threading.Thread(target=self._beat, args=(self._ended,), name="beat of the lock", daemon=True).start()
        self._depth += 1

    def check(self) -> None:
        """Require that this process still holds the lock; call it before each write.

        Raises:
            MgrpoError: Another process has taken the lock, because this one showed no heartbeat.
        """
        if self._depth and (latest := max(self._numbers(), default=0)) > self._number:
            owner = _read(self._home / f"{latest:06d}" / _OWNER)
            raise MgrpoError(
                f"{self._folder} was taken over by {owner.words if owner else 'another process'}: this "
                f"{self._command} sent no heartbeat for {SILENCE:.0f} s, and stops without writing.",
                hint="let the other process run: it resumed from the files in the folder.",
            )

    def release(self) -> None:
        """Undo one ``take``; the last one releases the lock."""
        self._depth -= 1
        if self._depth == 0 and self._owner is not None:
            self._ended.set()
            # If this write fails, the end of the process still shows that the lock is free.
            with suppress(OSError, MgrpoError):
                if max(self._numbers(), default=0) == self._number:
                    self._write(replace(self._owner, ended=True))

    def _claim(self) -> int:
        """Make the next numbered folder and return its number."""
        while True:
            latest = max(self._numbers(), default=0)
            if latest and (owner := self._living(latest)) is not None:
                raise ConfigurationError(
                    f"another {self._command} writes into {self._folder}: {owner.words}.",
                    hint="wait until it ends, stop it, or give another run.name.",
                )
            with suppress(FileExistsError):  # another process was faster; check whether it lives
                (self._home / f"{latest + 1:06d}").mkdir()
                return latest + 1

    def _living(self, number: int) -> Owner | None:
        """Return the living owner of a number; None if it has ended, is dead, or is not the latest."""
        path = self._home / f"{number:06d}" / _OWNER
        first, told, give_up = _beat_of(path), False, time.monotonic() + SILENCE
        while max(self._numbers(), default=0) == number:
            owner = _read(path)
            # Same machine: the process table decides at once, without waiting for a heartbeat.
            if owner is not None and (owner.ended or owner.machine == _machine()):
                return None if owner.ended or _began(owner.pid) != owner.began else owner
            # Only a change of the heartbeat shows life; its value is another machine's clock.
            if first is not None and owner is not None and _beat_of(path) != first:
                return owner
            if time.monotonic() > give_up:
                return None
            if owner is not None and not told:
                told = True
                print(
                    f"mgrpo: {self._folder} was last written by {owner.words}; waiting up to {SILENCE:.0f} s for "
                    "its heartbeat.",
                    file=sys.stderr,
                    flush=True,
                )
            first = first or _beat_of(path)
            # The file is missing for a moment only, between mkdir and the first write of its owner.
            time.sleep(0.05 if owner is None else 1.0)
        return None

    def _numbers(self) -> list[int]:
        with suppress(FileNotFoundError):
            return [int(name) for name in os.listdir(self._home) if _NUMBER.fullmatch(name)]
        return []

    def _write(self, owner: Owner) -> None:
        with atomic_path(self._home / f"{self._number:06d}" / _OWNER) as temporary:
            temporary.write_text(json.dumps(asdict(owner)), encoding="utf-8")

    def _remove_earlier(self) -> None:
        for number in self._numbers():
            if number < self._number:
                with suppress(OSError):
                    (self._home / f"{number:06d}" / _OWNER).unlink(missing_ok=True)
                    (self._home / f"{number:06d}").rmdir()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT):
            with suppress(OSError):
                os.utime(self._home / f"{self._number:06d}" / _OWNER)


def _here() -> Owner:
    began = _began(os.getpid())
    assert began is not None
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return Owner(socket.gethostname(), _machine(), os.getpid(), began, since)


def _machine() -> str:
    """Identifier within which process ids are unique. Containers and rebooted machines keep their hostname."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append((_PROCESSES / "sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink(_PROCESSES / "self/ns/pid"))
    return " ".join(parts)


def _began(pid: int) -> float | None:
    """Start time of a process on this machine; None if it does not run or is a zombie."""
    if not _PROCESSES.exists():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
        return None
    with suppress(FileNotFoundError, ProcessLookupError):
        # Clock ticks since boot. psutil adds the boot time, which changes when the clock is set.
        state, *fields = (_PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else float(fields[18])
    return None


def _read(path: Path) -> Owner | None:
    """Read an owner file; None if it is missing or incomplete."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _beat_of(path: Path) -> int | None:
    """Modification time in ns, read from the open file because network file systems cache it by name."""
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None
