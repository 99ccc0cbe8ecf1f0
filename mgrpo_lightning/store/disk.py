"""Disk: read, write, rename, fsync and mkdir for the store, with retries; tests can make each operation fail.

The store relies on three guarantees. Only one caller can make a folder. A rename within a folder shows the old state or
the new one. Data survives a crash after fsync. The store does not rely on locks, atomic appends or a common clock.
Other machines may see new files late, and in another order than they were written.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from mgrpo_lightning.errors import DataError

T = TypeVar("T")
PASSING = frozenset({errno.ESTALE, errno.EINTR, errno.EAGAIN})
"""Transient errors of network file systems; a retry often succeeds."""
TRIES = 4
_STRANGE = "a store has none: find out which program made it, and remove it."


class Disk:
    """The real file system."""

    def read(self, path: Path, limit: int) -> bytes:
        """Read all bytes of a regular file.

        Args:
            path: The file. A symbolic link is rejected, also one in place of its folder.
            limit: Maximum size in bytes.

        Raises:
            FileNotFoundError: The file does not exist, or is not visible yet.
            DataError: It is not a regular file, is larger than the limit, or is behind a symbolic link.
        """
        return _tried(lambda: self._read(path, limit))

    def write(self, path: Path, data: bytes) -> None:
        """Write a file atomically and durably; an existing file is replaced.

        Args:
            path: The file; its folder must exist.

        Raises:
            OSError: The write failed; the file has the old or the new content.
        """
        _tried(lambda: self._write(path, data))

    def names(self, folder: Path) -> list[str]:
        """List the names in a folder, unordered; empty if the folder does not exist.

        Args:
            folder: The folder; a symbolic link is rejected.
        """
        try:
            return _tried(lambda: self._names(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, path: Path) -> bool:
        """Whether a file exists; False if the file system cannot say."""
        try:
            return _tried(lambda: self._exists(path))
        except OSError:
            return False

    def make(self, folder: Path) -> bool:
        """Make a folder; return whether this call made it.

        Args:
            folder: The folder; its parent must exist.
        """
        try:
            os.mkdir(folder)
        except FileExistsError:
            return False
        # Without fsync of the parent, the new name may be lost in a crash of the machine.
        self.sync(folder.parent)
        return True

    def remove(self, path: Path) -> None:
        """Remove a file or an empty folder, if it exists."""
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()

    def sync(self, path: Path) -> None:
        """Make a file's content, or the names in a folder, durable (fsync)."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file within its folder."""
        os.rename(source, target)

    def fill(self, descriptor: int, data: bytes) -> None:
        """Write all of the data to an open file and make it durable.

        Args:
            descriptor: File descriptor, open for writing.
            data: The bytes to write.
        """
        view = memoryview(data)
        while view:
            # os.write may write fewer bytes than it was given.
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)

    def _read(self, path: Path, limit: int) -> bytes:
        _refuse_link(path.parent)
        try:
            # O_NONBLOCK: opening a FIFO that somebody put there must not block.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                _refuse_link(path)
            raise
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path} is not a regular file.", hint=_STRANGE)
            if status.st_size > limit:
                raise DataError(f"{path} has {status.st_size} bytes, above {limit}.", hint="find what wrote it.")
            # Bounded again, because the file may have grown after fstat.
            return file.read(limit + 1)

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        # O_EXCL and O_NOFOLLOW: never write through a file or link that somebody put there.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, 0o644)
            try:
                self.fill(descriptor, data)
            finally:
                os.close(descriptor)
            # The content is durable before the name: a crash leaves the old file or the whole new one.
            self.rename(temporary, path)
            self.sync(path.parent)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise

    def _exists(self, path: Path) -> bool:
        return path.exists()

    def _names(self, folder: Path) -> list[str]:
        _refuse_link(folder)
        return os.listdir(folder)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise DataError(f"{path} is a symbolic link.", hint=_STRANGE)


def _tried(work: Callable[[], T]) -> T:
    for _ in range(TRIES - 1):
        try:
            return work()
        except OSError as error:
            if error.errno not in PASSING:
                raise
    return work()
