"""Disks that fail: what network filesystems do to readers, and what a kill or a full disk does to a writer."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

from typing_extensions import override

from mgrpo_lightning.store.disk import Disk


class Killed(BaseException):
    """The process ends here; nothing of it may run on."""


class NetworkDisk(Disk):
    """Shows names late and in any order, and files torn or not at all, before it shows them as they are.

    Args:
        seed: Of what goes wrong, and when.
        rate: Part of the calls at which something does.
    """

    def __init__(self, seed: int, rate: float = 0.4) -> None:
        self._random = random.Random(seed)
        self._rate = rate
        self.faults = 0

    def _fails(self) -> bool:
        fails = self._random.random() < self._rate
        self.faults += fails
        return fails

    @override
    def _read(self, path: Path, limit: int) -> bytes:
        if self._fails():
            kind = self._random.choice(["stale", "io", "absent", "torn"])
            if kind == "torn":
                whole = super()._read(path, limit)
                return whole[: self._random.randrange(len(whole))]
            codes = {"stale": errno.ESTALE, "io": errno.EIO, "absent": errno.ENOENT}
            raise OSError(codes[kind], os.strerror(codes[kind]), str(path))
        return super()._read(path, limit)

    @override
    def _names(self, folder: Path) -> list[str]:
        names = super()._names(folder)
        if self._fails():
            if self._random.random() < 0.3:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(folder))
            names = [name for name in names if self._random.random() < 0.7]
        self._random.shuffle(names)
        return names


class DyingDisk(Disk):
    """Ends the process, or answers with an error, at one of its operations.

    Args:
        at: Number of the operation, from 0; negative: never.
        code: Error that is raised; None: the process is killed.
    """

    def __init__(self, at: int = -1, code: int | None = None) -> None:
        self.at = at
        self.code = code
        self.operations = 0
        self._dead = False

    def _operation(self) -> None:
        if self._dead:
            raise Killed
        self.operations += 1
        if self.operations - 1 == self.at:
            if self.code is not None:
                raise OSError(self.code, os.strerror(self.code))
            self._dead = True
            raise Killed

    @override
    def fill(self, descriptor: int, data: bytes) -> None:
        self._operation()
        os.write(descriptor, data[: len(data) // 2])
        self._operation()
        os.lseek(descriptor, 0, os.SEEK_SET)
        super().fill(descriptor, data)

    @override
    def rename(self, source: Path, target: Path) -> None:
        self._operation()
        super().rename(source, target)

    @override
    def sync(self, path: Path) -> None:
        self._operation()
        super().sync(path)

    @override
    def make(self, folder: Path) -> bool:
        self._operation()
        return super().make(folder)

    @override
    def remove(self, path: Path) -> None:
        self._operation()
        super().remove(path)
