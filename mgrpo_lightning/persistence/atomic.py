"""Atomic writes of files and folders: temporary name, fsync, rename; a lock around a file; errors of a full disk.

The new version is written under a temporary name in the same folder, flushed to the disk (fsync) and renamed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mgrpo_lightning.errors import MgrpoError


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path for a file; when the block succeeds, it is renamed to ``target``.

    Args:
        target: The file to create or replace; its folder is created if missing.

    Raises:
        MgrpoError: The disk is full; the old file is unchanged.
    """
    target = Path(target)
    with _temporary(target, "tmp") as temporary:
        yield temporary
        # Content before name: some file systems write a rename to disk before the file's data.
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold an exclusive lock during the block, for instance to read, change and write a file.

    The operating system releases the lock when a process dies. On a file system without locks the block runs without
    one.

    Args:
        lock: The lock file; it is empty, created if missing, and never removed.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            # flock() locks the open file, so it also excludes other threads of this process.
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; when the block succeeds, it is renamed to ``target``.

    A folder cannot be replaced in one step. An existing ``target`` is renamed aside first and removed last. A crash in
    between leaves it complete, beside the new one, under a name that ends with ``.old``.

    Args:
        target: The folder to create or replace; its parent is created if missing.

    Raises:
        MgrpoError: The disk is full; the old folder is unchanged.
    """
    target = Path(target)
    with _temporary(target, "tmp") as temporary:
        temporary.mkdir()
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        aside = _beside(target, "old")
        if target.exists():
            os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except OSError:
            if aside.exists():
                os.rename(aside, target)
            raise
        _sync(target.parent)
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _temporary(target: Path, suffix: str) -> Iterator[Path]:
    """Yield a free name beside the target. On any failure it is removed, and a full disk gets its own error."""
    temporary = _beside(target, suffix)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except BaseException as error:
        # BaseException: an interrupt must not leave temporary files behind either.
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()
        if disk_is_full(error):
            raise MgrpoError(
                f"no space left on the disk while writing {target}.",
                hint="free some space (or raise the quota) and resume; the previous version is untouched.",
            ) from error
        raise


def disk_is_full(error: BaseException) -> bool:
    """Whether a failed write says that the disk is full or the quota is used up.

    Args:
        error: The exception of the write.
    """
    # Writers in Rust or C++ (safetensors, for one) wrap the error and keep only its text.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def unwritten(error: OSError, path: Path, kept: str) -> MgrpoError:
    """Return the error for a failed write, with a fix.

    Args:
        error: The exception of the write.
        path: The file or folder.
        kept: Names what is not lost, for the hint.
    """
    if disk_is_full(error):
        reason, fix = "no space left on the disk", "free some space (or raise the quota)"
    else:
        reason, fix = error.strerror or str(error), "check that the disk is mounted and writable"
    return MgrpoError(f"{reason} while writing {path}.", hint=f"{fix}, and resume; {kept}.")


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{suffix}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
