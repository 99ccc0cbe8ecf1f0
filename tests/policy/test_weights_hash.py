"""The hash of a base's files: what it depends on, and that large files are read once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mgrpo_lightning.policy import weights_hash
from mgrpo_lightning.policy.weights_hash import content_digest, weights_digest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything is large and old enough to be remembered, in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weights_hash, "SMALL", -1)
    monkeypatch.setattr(weights_hash, "JUST_NOW", -1e9)
    return tmp_path / "cache"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read whole."""
    names: list[str] = []
    digest = hashlib.file_digest

    def noted(file: Any, kind: str) -> Any:
        names.append(Path(file.name).name)
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return names


@pytest.fixture
def folder(tiny_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dir, tmp_path / "base"))


def test_a_copy_elsewhere_has_the_same_and_only_its_tokenizer_does_not_count(folder: Path, tmp_path: Path) -> None:
    found = weights_digest(folder)
    (folder / "tokenizer.json").write_text("another")
    (folder / "README.md").write_text("another")
    assert weights_digest(Path(shutil.copytree(folder, tmp_path / "copy"))) == weights_digest(folder) == found


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors"])
def test_one_bit_of_anything_that_counts_makes_another(name: str, folder: Path) -> None:
    found = weights_digest(folder)
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    assert weights_digest(folder) != found


def test_shards_count_by_their_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    assert weights_digest(folder) is None
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = weights_digest(folder)
    (folder / "model-00001-of-00001.safetensors").write_bytes(b"others")
    assert None is not weights_digest(folder) != found is not None


def test_without_a_folder_or_weights_there_is_none(tmp_path: Path) -> None:
    assert weights_digest(None) is None
    assert weights_digest(tmp_path) is None


def test_a_blob_of_the_hub_is_not_read_as_its_name_is_its_hash(tmp_path: Path, read: list[str]) -> None:
    blob = tmp_path / "blobs" / hashlib.sha256(b"weights").hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    (link := tmp_path / "model.safetensors").symlink_to(blob)
    assert content_digest(link) == blob.name == hashlib.sha256(link.read_bytes()).hexdigest()
    assert not read


def test_a_file_is_read_once_and_again_when_it_has_changed(folder: Path, read: list[str]) -> None:
    file = folder / "model.safetensors"
    first = content_digest(file)
    assert content_digest(file) == first == hashlib.sha256(file.read_bytes()).hexdigest()
    assert read == [file.name]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert content_digest(file) == hashlib.sha256(content).hexdigest()
    assert read == [file.name] * 2


def test_what_has_just_been_written_is_not_remembered(
    folder: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_hash, "JUST_NOW", 1e9)
    assert content_digest(folder / "config.json") == content_digest(folder / "config.json")
    assert read == ["config.json"] * 2


@pytest.mark.parametrize("fault", ["a file in its place", "rubbish", "another file's"])
def test_no_cache_is_needed(fault: str, folder: Path, cache: Path, read: list[str]) -> None:
    file = folder / "config.json"
    true = hashlib.sha256(file.read_bytes()).hexdigest()
    if fault == "a file in its place":
        cache.write_text("")
    else:
        assert content_digest(file) == true
        (entry,) = cache.rglob("*.json")
        entry.write_text("{" if fault == "rubbish" else json.dumps({"file": ["other", 1, 1], "sha256": "0"}))
    assert content_digest(file) == true
    assert len(read) == (1 if fault == "a file in its place" else 2)
