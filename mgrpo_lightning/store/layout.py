"""Layout of a store: folders of writers and their incarnations, layout version, and the heartbeat file ``alive.json``.

store/
  store.json                                version of the layout
  writers/searcher-0/000002/                second incarnation of rank 0 of the searcher
    0000000000-0000000041-5e1c0b3a.arrow    its records 0 to 41, and the CRC-32 of the file
    alive.json                              heartbeat, replaced every few seconds while it runs
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

VERSION = 3
"""Version of the layout."""
FOLDER = "store"
"""Name of the store in a run folder."""
STOP = "stop"
"""File beside the store that asks every role to stop at a point from which it can resume."""
BEAT = 2.0
"""Seconds between two heartbeats of a writer."""
_HEAD = "store.json"
_WRITER = re.compile(r"([A-Za-z0-9][A-Za-z0-9_]{0,63})-(0|[1-9]\d{0,5})")
_INCARNATION = re.compile(r"\d{6}")


def open_folder(disk: Disk, root: Path) -> None:
    """Create a store's folder, or check that an existing folder is a store.

    Raises:
        DataError: It is a store of another version, or contains something else.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    if not disk.make(root):
        check_folder(disk, root)
    disk.make(root / "writers")
    if _HEAD not in disk.names(root):  # roles that start at the same time write the same content
        disk.write(root / _HEAD, json.dumps({"version": VERSION}).encode())


def check_folder(disk: Disk, root: Path) -> None:
    """Require that a folder is a store; a store that is just being created passes.

    Raises:
        DataError: The folder does not exist, is a store of another version, or is not a store.
    """
    names = set(disk.names(root))
    if not names and not root.is_dir():
        raise DataError(f"there is no store at {root}.", hint="give the run folder of a decoupled run, or its store.")
    other = sorted(name for name in names - {"writers"} if not name.startswith(f".{_HEAD}."))
    if _HEAD not in names and other:
        raise DataError(f"{root} is not a store: it has {other[0]!r}.", hint="give an empty folder.")
    # Missing while it is being created; each segment has a version too.
    version = (_read_json(disk, root / _HEAD) or {}).get("version", VERSION)
    if version != VERSION:
        raise DataError(
            f"{root} is a store of version {version!r}; this package reads version {VERSION}.",
            hint="read it with the package that wrote it.",
        )


def writer_name(role: str, rank: int) -> str:
    """Return the folder name of a writer.

    Args:
        role: Name of the role.
        rank: Rank within the role.

    Raises:
        DataError: The role's name is not allowed as a folder name.
    """
    name = f"{role}-{rank}"
    if not _WRITER.fullmatch(name):
        raise DataError(
            f"role {role!r}, rank {rank}, cannot name a folder of the store.",
            hint="name roles with letters, digits and underscores, 64 at most.",
        )
    return name


def writers(disk: Disk, root: Path) -> list[str]:
    """Return the names of all writers, sorted; other names are ignored."""
    return sorted(name for name in disk.names(root / "writers") if _WRITER.fullmatch(name))


def incarnations(disk: Disk, folder: Path) -> list[int]:
    """Return the numbers of a writer's incarnations, ascending."""
    return sorted(int(name) for name in disk.names(folder) if _INCARNATION.fullmatch(name))


def incarnation_folder(home: Path, number: int) -> Path:
    """Return the folder of one incarnation.

    Args:
        home: Folder of the writer.
        number: Number of the incarnation, from 1.
    """
    return home / f"{number:06d}"


@dataclass(frozen=True)
class Alive:
    """The heartbeat file of a writer. Its first version shows that the incarnation is complete."""

    NAME: ClassVar[str] = "alive.json"
    beat: int
    """Counter that grows while the process lives; clocks are never compared."""
    start: int = 0
    """Sequence number of the first record that is kept; all earlier ones are removed."""
    state: Mapping[str, object] = field(default_factory=dict)
    """What the process is doing, for instance its step."""

    def encode(self) -> bytes:
        """Encode it as JSON."""
        return json.dumps(asdict(self)).encode()


def read_alive(disk: Disk, folder: Path) -> Alive | None:
    """Read the heartbeat file of an incarnation; None if it is missing or incomplete.

    Args:
        folder: Folder of the incarnation.
    """
    found = _read_json(disk, folder / Alive.NAME) or {}
    try:
        return Alive(int(found["beat"]), int(found["start"]), dict(found["state"]))
    except (ValueError, KeyError, TypeError):
        return None


def _read_json(disk: Disk, path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if the file is missing or incomplete."""
    try:
        data = disk.read(path, 2**16)
    except OSError:
        return None
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
