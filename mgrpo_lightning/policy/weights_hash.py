"""SHA-256 of a base's weight and config files, which identifies it; hashes of large files are cached on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.persistence.atomic import atomic_path

SMALL = 2**20
"""Bytes. Smaller files are hashed each time, without the hash cache."""
JUST_NOW = 2.0
"""Seconds. A file changed this recently may change again with the same modification time, so its hash is not cached."""


def weights_digest(folder: Path | None) -> str | None:
    """One hash of all files that transformers reads of a base: its configs and its weights.

    Two folders with the same files have the same hash.

    Args:
        folder: Folder with config.json and safetensors files, such as a snapshot in the hub's cache.

    Returns:
        SHA-256 in hexadecimal; None if there is no folder or it has no safetensors weights.

    Raises:
        OSError: A file cannot be read.
    """
    if folder is None or not (files := list(_files(folder))):
        return None
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {content_digest(path)}\n".encode())
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. The file is read only if its hash is not known yet.

    A large file in the hub's cache is a link to a blob, and the blob's name is the hash. The hashes of other files are
    cached in ``$XDG_CACHE_HOME/mgrpo_lightning`` by path, size and modification time. If that folder is not writable,
    the file is read each time.

    Raises:
        OSError: The file cannot be read.
    """
    file = path.resolve()
    # Only large files (LFS) have their SHA-256 as name. Small ones have a git hash of 40 digits.
    if file.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", file.name):
        return file.name
    found = file.stat()
    known = [str(file), found.st_size, found.st_mtime_ns]
    entry = _cache() / f"{hashlib.sha256(str(file).encode()).hexdigest()}.json"
    if found.st_size > SMALL:
        # A damaged cache entry counts as missing: the file is hashed again.
        with suppress(OSError, ValueError, KeyError, TypeError):
            remembered = json.loads(entry.read_text(encoding="utf-8"))
            if remembered["file"] == known:
                return str(remembered["sha256"])
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if found.st_size > SMALL and time.time() - found.st_mtime > JUST_NOW:
        with suppress(OSError, MgrpoError), atomic_path(entry) as temporary:
            temporary.write_text(json.dumps({"file": known, "sha256": digest}), encoding="utf-8")
    return digest


def _files(folder: Path) -> Iterator[Path]:
    """The files that transformers reads: configs, and one safetensors file or the index with the files it names."""
    weights = [folder / SAFE_WEIGHTS_NAME]
    if not weights[0].is_file():
        index = folder / SAFE_WEIGHTS_INDEX_NAME
        if not index.is_file():
            return
        names = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
        weights = [index, *(folder / name for name in sorted(set(names)))]
    yield from (path for name in (CONFIG_NAME, GENERATION_CONFIG_NAME) if (path := folder / name).is_file())
    yield from weights


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "mgrpo_lightning" / "hashes"
