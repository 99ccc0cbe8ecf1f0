"""Write files and folders so that a reader, or a crash at any moment, sees the old version or the new one, never half.

The new version is made under a temporary name in the same folder, flushed to the disk, and renamed.
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

from mgrpo_lightning.errors import ConfigurationError, MgrpoError


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Give a temporary path to write a file to; it becomes ``target`` when the block ends well.

    Args:
        target: The file to make or replace; its folder is made if missing.

    Raises:
        MgrpoError: The disk is full; the old file is untouched.
    """
    target = Path(target)
    with _temporary(target, "tmp") as temporary:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """The block in which nobody else is who names the same lock: to read a file, change it and write it.

    The system gives the lock back when a process dies. On a filesystem that has no locks the block runs without one.

    Args:
        lock: An empty file, made if missing, which stays.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # of the open file, so threads of one process exclude each other too
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield


@contextmanager
def cache_path(target: Path) -> Iterator[Path]:
    """Like ``atomic_path``, for an entry of a cache, whose folder is a setting: in a play nothing else may be blamed.

    Args:
        target: The entry to make or replace.

    Raises:
        ConfigurationError: It cannot be written.
    """
    try:
        with atomic_path(target) as temporary:
            yield temporary
    except (OSError, MgrpoError) as error:
        problem = error.strerror or error if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"the cache {target.parent} cannot be written: {problem}.", hint="give another folder as `cache`, or none."
        ) from error


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it becomes ``target`` when the block ends well.

    A folder cannot be replaced in one step: an old ``target`` is renamed aside first, and removed last. A crash in
    between leaves it, whole, beside the new one under a name that ends with ``.old``.

    Args:
        target: The folder to make or replace; its parent is made if missing.

    Raises:
        MgrpoError: The disk is full; the old folder is untouched.
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
    """A free name beside the target: removed again on any failure, and a full disk is told as such."""
    temporary = _beside(target, suffix)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except BaseException as error:
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
    """Whether a failed write says that the disk is full, or the quota used up.

    Args:
        error: What the write raised.
    """
    # Writers in Rust or C++ (safetensors, for one) wrap the error and keep only its text.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def unwritten(error: OSError, path: Path, kept: str) -> MgrpoError:
    """The error of a write that failed, with the fix.

    Args:
        error: What the write raised.
        path: What was written to.
        kept: What is not lost, for the hint.
    """
    if disk_is_full(error):
        reason, fix = "no space left on the disk", "free some space (or raise the quota)"
    else:
        reason, fix = error.strerror or str(error), "see that the disk is there and may be written to"
    return MgrpoError(f"{reason} while writing {path}.", hint=f"{fix}, and resume; {kept}.")


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{suffix}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
