"""Which weights a base has: one hash of its files, remembered, so that no later start reads 60 GB for it."""

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
"""Bytes up to which a file is simply read again."""
JUST_NOW = 2.0
"""Seconds within which a file may be written twice without another time of change; its hash is not remembered."""


def weights_digest(folder: Path | None) -> str | None:
    """One hash of what transformers reads of a base: its settings, and the content of its weights.

    Two folders with the same files have the same one, wherever they are.

    Args:
        folder: With config.json and safetensors, such as a snapshot of the hub's cache.

    Returns:
        Hexadecimal; None without a folder or without such weights.

    Raises:
        OSError: A file of it cannot be read.
    """
    if folder is None or not (files := list(_files(folder))):
        return None
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {content_digest(path)}\n".encode())
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of a file, read only if nobody knows it yet.

    A large file of the hub's cache is a link to a blob whose name is its hash. Others are remembered by path, size and
    time of change, in ``$XDG_CACHE_HOME/mgrpo_lightning``; where that cannot be written, they are read each time.

    Args:
        path: Of the file.

    Raises:
        OSError: It cannot be read.
    """
    file = path.resolve()
    if file.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", file.name):
        return file.name
    found = file.stat()
    known = [str(file), found.st_size, found.st_mtime_ns]
    entry = _cache() / f"{hashlib.sha256(str(file).encode()).hexdigest()}.json"
    if found.st_size > SMALL:
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
    """Of the weights, those that transformers takes: one file, or what the index names."""
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
