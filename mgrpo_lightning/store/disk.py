"""Disk: the few filesystem operations that the store is made of, each of which a test can make fail.

What is asked of the filesystem: a folder is made by one caller only; a rename within a folder shows the old state or
the new one; what fsync was called on survives. Not asked for: locks, atomic appends, a common clock, or that others see
a new file at once or in the order in which files were made.
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
"""Errors of network filesystems that a second try may not meet."""
TRIES = 4
_STRANGE = "a store has none; see who made it, and remove it."


class Disk:
    """The filesystem as it is."""

    def read(self, path: Path, limit: int) -> bytes:
        """All bytes of a regular file.

        Args:
            path: The file; a symbolic link, or one to its folder, is not followed.
            limit: Largest size that is read.

        Raises:
            FileNotFoundError: It is not there, or not yet.
            DataError: It is no regular file, larger, or reached through a symbolic link.
        """
        return _tried(lambda: self._read(path, limit))

    def write(self, path: Path, data: bytes) -> None:
        """Make a file whole, durable and visible, in this order; a file that is there is replaced.

        Args:
            path: The file; its folder is there.
            data: All of it.

        Raises:
            OSError: It could not be done; the file is as before, or as it should be.
        """
        _tried(lambda: self._write(path, data))

    def names(self, folder: Path) -> list[str]:
        """Names in a folder, in no order; none if there is no such folder.

        Args:
            folder: To list; a symbolic link is not followed.
        """
        try:
            return _tried(lambda: self._names(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, path: Path) -> bool:
        """Whether there is a file; none as long as the filesystem cannot say.

        Args:
            path: The file.
        """
        try:
            return _tried(lambda: self._exists(path))
        except OSError:
            return False

    def make(self, folder: Path) -> bool:
        """Make a folder; whether this call made it.

        Args:
            folder: Its parent is there.
        """
        try:
            os.mkdir(folder)
        except FileExistsError:
            return False
        self.sync(folder.parent)
        return True

    def remove(self, path: Path) -> None:
        """Remove a file, or an empty folder; what is not there is fine.

        Args:
            path: The file or folder.
        """
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()

    def sync(self, path: Path) -> None:
        """Make a file or the names in a folder durable.

        Args:
            path: The file or folder.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name in the same folder.

        Args:
            source: As it is called.
            target: As it shall be called.
        """
        os.rename(source, target)

    def fill(self, descriptor: int, data: bytes) -> None:
        """Write all of the data and make it durable.

        Args:
            descriptor: Of a file open for writing.
            data: What to write.
        """
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)

    def _read(self, path: Path, limit: int) -> bytes:
        _refuse_link(path.parent)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                _refuse_link(path)
            raise
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path} is no regular file.", hint=_STRANGE)
            if status.st_size > limit:
                raise DataError(f"{path} has {status.st_size} bytes, above {limit}.", hint="see who wrote it.")
            return file.read(limit + 1)

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, 0o644)
            try:
                self.fill(descriptor, data)
            finally:
                os.close(descriptor)
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
