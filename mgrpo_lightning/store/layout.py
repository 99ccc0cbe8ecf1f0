"""Where things stand in a store, and which names are allowed there.

store/
  store.json                                version of the layout
  writers/searcher-0/000002/                second incarnation of rank 0 of the searcher
    0000000000-0000000041-5e1c0b3a.arrow    its records 0 to 41, and the CRC-32 of the file
    alive.json                              replaced every few seconds while it runs
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.store.disk import Disk

VERSION = 2
"""Of the layout."""
FOLDER = "store"
"""Of a store, in a run folder."""
STOP = "stop"
"""A file beside the store that asks every role to stop where it can go on."""
BEAT = 2.0
"""Seconds between two beats of a writer."""
_HEAD = "store.json"
_WRITER = re.compile(r"([A-Za-z0-9][A-Za-z0-9_]{0,63})-(0|[1-9]\d{0,5})")
_INCARNATION = re.compile(r"\d{6}")


def open_folder(disk: Disk, root: Path) -> None:
    """Make a store's folder, or check that it is one.

    Args:
        disk: To make it with.
        root: The folder.

    Raises:
        DataError: It is a store of another version, or holds something else.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    if not disk.make(root):
        check_folder(disk, root)
    disk.make(root / "writers")
    if _HEAD not in disk.names(root):  # whoever else starts at this moment writes the same
        disk.write(root / _HEAD, json.dumps({"version": VERSION}).encode())


def check_folder(disk: Disk, root: Path) -> None:
    """Require a store's folder; one that somebody makes at this moment passes.

    Args:
        disk: To read with.
        root: The folder.

    Raises:
        DataError: There is none, or it is of another version or something else.
    """
    names = set(disk.names(root))
    if not names and not root.is_dir():
        raise DataError(f"there is no store at {root}.", hint="give the run folder of a decoupled run, or its store.")
    other = sorted(name for name in names - {"writers"} if not name.startswith(f".{_HEAD}."))
    if _HEAD not in names and other:
        raise DataError(f"{root} is no store, but holds {other[0]!r}.", hint="give an empty folder.")
    version = (_read_json(disk, root / _HEAD) or {}).get("version", VERSION)  # each segment says its version too
    if version != VERSION:
        raise DataError(
            f"{root} is a store of version {version!r}; this package reads version {VERSION}.",
            hint="read it with the package that wrote it.",
        )


def writer_name(role: str, rank: int) -> str:
    """Folder of a writer.

    Args:
        role: Of the team.
        rank: Within the role's own process group.

    Raises:
        DataError: The role's name cannot be one of a folder.
    """
    name = f"{role}-{rank}"
    if not _WRITER.fullmatch(name):
        raise DataError(
            f"role {role!r} of rank {rank} cannot have a folder in a store.",
            hint="name roles with letters, digits and underscores, 64 at most.",
        )
    return name


def writers(disk: Disk, root: Path) -> list[str]:
    """Names of all writers, sorted; whatever else lies there is left alone.

    Args:
        disk: To list with.
        root: The store.
    """
    return sorted(name for name in disk.names(root / "writers") if _WRITER.fullmatch(name))


def incarnations(disk: Disk, folder: Path) -> list[int]:
    """Numbers of a writer's incarnations, ascending.

    Args:
        disk: To list with.
        folder: Of the writer.
    """
    return sorted(int(name) for name in disk.names(folder) if _INCARNATION.fullmatch(name))


def incarnation_folder(home: Path, number: int) -> Path:
    """Folder of one incarnation.

    Args:
        home: Of the writer.
        number: Counted from 1.
    """
    return home / f"{number:06d}"


@dataclass(frozen=True)
class Alive:
    """What a writer says about itself now. Its first one says that the incarnation has begun in full."""

    NAME: ClassVar[str] = "alive.json"
    beat: int
    """Grows while the process lives; nobody compares clocks."""
    start: int = 0
    """Sequence number below which everything is removed."""
    state: Mapping[str, object] = field(default_factory=dict)
    """What it is at."""

    def encode(self) -> bytes:
        """As a file."""
        return json.dumps(asdict(self)).encode()


def read_alive(disk: Disk, folder: Path) -> Alive | None:
    """What stands in a writer's folder, None if that has not begun.

    Args:
        disk: To read with.
        folder: Of one incarnation.
    """
    found = _read_json(disk, folder / Alive.NAME) or {}
    try:
        return Alive(int(found["beat"]), int(found["start"]), dict(found["state"]))
    except (ValueError, KeyError, TypeError):
        return None


def _read_json(disk: Disk, path: Path) -> dict[str, Any] | None:
    """An object, None if it is not there, or not whole."""
    try:
        data = disk.read(path, 2**16)
    except OSError:
        return None
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
