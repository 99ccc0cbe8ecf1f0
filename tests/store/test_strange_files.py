"""What a store makes of files that are damaged, forged, none of its own, or reached through links."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.store.arrow_files import Segment, Unreadable, read_segment, segments
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.record import Closed
from mgrpo_lightning.store.tail import Tail
from mgrpo_lightning.store.writer import StoreWriter
from tests.store.said import call, records


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [damage, lambda path: path.write_bytes(path.read_bytes()[:50]), Path.unlink])
def test_a_segment_that_never_comes_is_an_error_with_its_name(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    root = tmp_path / "store"
    now = 0.0
    writer = StoreWriter(root, "main")
    for number in range(3):
        writer.publish([call(number)])
    harm(writer.folder / segments(Disk(), writer.folder)[1].name)
    tail = Tail(root, patience=10, clock=lambda: now)
    assert records(tail.poll()) == [call(0)]
    now = 9.0
    assert tail.poll() == []
    now = 11.0
    with pytest.raises(DataError, match=r"not arrived within 10 s: .*(0000000001|record 1).*HINT: .*restart its role"):
        tail.poll()
    again = StoreWriter(root, "main")
    assert again.recovered == [call(0)]
    again.publish([call(1, "anew"), call(2)])
    assert records(tail.poll()) == [call(0), call(1, "anew"), call(2)]


@pytest.mark.parametrize("seed", range(200))
def test_a_file_made_by_somebody_else_is_refused_or_says_what_its_hashes_say(tmp_path: Path, seed: int) -> None:
    writer = StoreWriter(tmp_path / "store", "main")
    said = [call(0), call(1, "x" * 100), replace(call(2), calls=(Closed(0, 0, 1, "ab"),))]
    writer.publish(said)
    (segment,) = segments(Disk(), writer.folder)
    draw = random.Random(seed)
    data = bytearray((writer.folder / segment.name).read_bytes())
    for _ in range(draw.choice([1, 1, 3, 30])):
        data[draw.randrange(len(data))] = draw.choice([0, 1, 127, 128, 255, draw.randrange(256)])
    if draw.random() < 0.2:
        del data[draw.randrange(len(data)) :]
    forged = Segment(0, 2, f"{zlib.crc32(data):08x}")
    (writer.folder / forged.name).write_bytes(data)
    try:
        found = read_segment(Disk(), writer.folder, forged)
    except (Unreadable, DataError):
        return
    assert [replace(record, seconds=None) for record in found.values()] == said  # seconds are not in the hash


def test_what_is_none_of_a_stores_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "store"
    writer = StoreWriter(root, "main")
    writer.publish([call(0)])
    for name in ("writers/notes.txt", "writers/main-0/backup", "writers/main-0/000001/plot.png", "readme"):
        (root / name).write_text("mine")
    assert records(Tail(root).poll()) == [call(0)]


@pytest.mark.parametrize("link", ["writers/evil-0", "writers/evil-0/000001", "writers/evil-0/000001/alive.json"])
def test_nothing_outside_of_the_folder_is_read(tmp_path: Path, link: str) -> None:
    outside = StoreWriter(tmp_path / "other", "evil")
    outside.publish([call(0)])
    root = tmp_path / "store"
    StoreWriter(root, "main")
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(tmp_path / "other" / link)
    with pytest.raises(DataError, match="symbolic link"):
        Tail(root).poll()


@pytest.mark.parametrize("role", ["../main", "", "a/b", "x" * 65, ".hidden", "a-b"])
def test_a_role_whose_name_is_none_for_a_folder_is_refused(tmp_path: Path, role: str) -> None:
    with pytest.raises(DataError, match="HINT: name roles with letters"):
        StoreWriter(tmp_path / "store", role)
    assert not (tmp_path / "store").exists()


def test_another_folder_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    for make in (lambda: StoreWriter(tmp_path, "main"), lambda: Tail(tmp_path)):
        with pytest.raises(DataError, match=r"is not a store: it has 'thesis.tex'"):
            make()
    with pytest.raises(DataError, match="there is no store at"):
        Tail(tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_store_of_another_version_is_told(tmp_path: Path) -> None:
    root = tmp_path / "store"
    StoreWriter(root, "main")
    (root / "store.json").write_text('{"version": 1}')
    with pytest.raises(DataError, match="of version 1; this package reads version 3"):
        Tail(root)
