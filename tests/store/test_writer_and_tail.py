"""A store loses, doubles and reorders nothing: against a list, on disks that fail, and killed at every operation."""

from __future__ import annotations

import errno
import random
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrpo_lightning.errors import DataError, MgrpoError
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.record import Closed, Record
from mgrpo_lightning.store.segment import Segment, Unreadable, read_segment, segments
from mgrpo_lightning.store.tail import Entry, Tail
from mgrpo_lightning.store.writer import StoreWriter
from mgrpo_lightning.trajectory import Key
from tests.store.faults import DyingDisk, Killed, NetworkDisk


def call(number: int, text: str = "find it", step: int = 0) -> Record:
    return Record("delegations", "train", Key(step, number, 0, 1), "searcher", text=text, parent=0)


def records(entries: Iterable[Entry]) -> list[Record]:
    return [entry.record for entry in entries]


def counting(seen: Iterable[Record]) -> dict[object, Record]:
    return {record.place: record for record in seen}


def test_what_is_published_is_read_once_and_in_order(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", "main")
    tail = Tail(tmp_path / "store")
    assert tail.poll() == []
    writer.publish([call(0), call(1)])
    writer.publish([call(2)])
    assert records(tail.poll()) == [call(0), call(1), call(2)]
    assert tail.poll() == []
    writer.publish([call(3)])
    assert records(tail.poll()) == [call(3)]
    assert records(Tail(tmp_path / "store").poll()) == [call(number) for number in range(4)]


@given(
    st.lists(
        st.builds(
            Record,
            st.sampled_from(["members", "delegations", "returns", "outcomes", "frontiers"]),
            st.sampled_from(["train", "validate", "predict"]),
            st.builds(Key, *[st.integers(-1, 2**40)] * 4),
            st.text(max_size=9),
            event=st.none() | st.text(max_size=5),
            of=st.none() | st.text(max_size=5),
            parent=st.none() | st.integers(0, 99),
            text=st.none() | st.text(max_size=99),
            version=st.none() | st.integers(0, 2**40),
            failed=st.none() | st.booleans(),
            correct=st.none() | st.floats(allow_nan=False),
            seconds=st.none() | st.floats(0, 9),
            calls=st.none()
            | st.lists(st.builds(Closed, *[st.integers(0, 9)] * 3, st.text(max_size=5)), max_size=3).map(tuple),
        ),
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_record_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, published: list[Record]) -> None:
    root = tmp_path_factory.mktemp("any") / "store"
    StoreWriter(root, "main").publish(published)
    assert records(Tail(root).poll()) == published


def test_a_hash_is_that_of_the_content_alone() -> None:
    one = call(1)
    assert replace(one, seconds=3.0).hash == one.hash
    assert (
        len({one.hash, call(2).hash, call(1, "other").hash, replace(one, of="x").hash, replace(one, role="y").hash})
        == 5
    )


def test_a_restarted_writer_carries_over_what_counts(tmp_path: Path) -> None:
    root = tmp_path / "store"
    first = StoreWriter(root, "main")
    first.publish([call(0), call(1), call(0, "something else")])
    early = Tail(root)
    assert len(early.poll()) == 3
    second = StoreWriter(root, "main")
    assert (first.incarnation, second.incarnation) == (1, 2)
    assert second.recovered == [call(1), call(0, "something else")]
    second.publish([call(2)])
    expected = [call(1), call(0, "something else"), call(2)]
    assert records(Tail(root).poll()) == expected
    assert records(early.poll()) == expected
    third = StoreWriter(root, "main", keep=lambda record: record.key.query == 2)
    assert third.recovered == [call(2)]


def test_one_that_was_thought_dead_is_told_and_not_read(tmp_path: Path) -> None:
    root = tmp_path / "store"
    old = StoreWriter(root, "main")
    old.publish([call(0)])
    StoreWriter(root, "main")
    tail = Tail(root)
    with pytest.raises(MgrpoError, match=r"main-0 has been started anew while incarnation 1.*HINT: let one process"):
        old.publish([call(1)])
    assert records(tail.poll()) == [call(0)]


def test_writers_do_not_meet(tmp_path: Path) -> None:
    root = tmp_path / "store"
    writers = [StoreWriter(root, "main"), StoreWriter(root, "searcher", 0), StoreWriter(root, "searcher", 11)]
    for number, writer in enumerate(writers):
        writer.publish([call(number)])
    assert {entry.writer: entry.record for entry in Tail(root).poll()} == {
        "main-0": call(0),
        "searcher-0": call(1),
        "searcher-11": call(2),
    }


def test_closed_steps_become_one_segment_and_old_ones_go(tmp_path: Path) -> None:
    root, disk = tmp_path / "store", Disk()
    writer = StoreWriter(root, "main")
    slow, quick = Tail(root), Tail(root)
    for step in range(4):
        for number in range(5):
            writer.publish([call(number, step=step)])
        quick.poll()
        writer.close_step(step)
    assert [(one.first, one.last) for one in segments(disk, writer.folder)] == [(0, 4), (5, 9), (10, 14), (15, 19)]
    everything = [call(number, step=step) for step in range(4) for number in range(5)]
    assert records(slow.poll()) == everything
    assert quick.poll() == []
    late = Tail(root)
    writer.close_step(3, drop_before=2)
    assert [(one.first, one.last) for one in segments(disk, writer.folder)] == [(10, 14), (15, 19)]
    assert records(late.poll()) == everything[10:]
    writer.publish([call(9, step=4)])
    assert records(slow.poll()) == records(late.poll()) == records(quick.poll()) == [call(9, step=4)]
    assert StoreWriter(root, "main").recovered == [*everything[10:], call(9, step=4)]


@pytest.mark.parametrize("seed", range(12))
def test_a_network_filesystem_delays_and_changes_nothing(tmp_path: Path, seed: int) -> None:
    """Names come late and in any order, files torn, stale or with I/O errors: every record comes, once, in order."""
    root = tmp_path / "store"
    now = 0.0
    disk = NetworkDisk(seed)
    writer = StoreWriter(root, "main")
    tail = Tail(root, disk=disk, clock=lambda: now)
    published: list[Record] = []
    seen: list[Record] = []
    for step in range(6):
        for number in range(4):
            published.append(call(number, step=step))
            writer.publish(published[-1:])
            seen += records(tail.poll())
            assert seen == published[: len(seen)]
        writer.close_step(step)
    for _ in range(60):
        now += 1
        seen += records(tail.poll())
    assert seen == published
    assert disk.faults > 20


@pytest.mark.parametrize("seed", range(12))
def test_nor_does_it_across_restarts(tmp_path: Path, seed: int) -> None:
    root = tmp_path / "store"
    StoreWriter(root, "main")
    tail = Tail(root, disk=NetworkDisk(seed))
    published: list[Record] = []
    seen: list[Record] = []
    for start in range(4):
        writer = StoreWriter(root, "main")
        assert writer.recovered == list(counting(published).values())
        for number in range(5):
            published.append(call(number, f"attempt {start}" if number % 2 else "the same"))
            published = list(counting(published).values()) if number == 0 else published
            writer.publish(published[-1:])
            seen += records(tail.poll())
    for _ in range(60):
        seen += records(tail.poll())
    assert counting(seen) == counting(published)


def script(root: Path, disk: Disk, told: list[Record]) -> None:
    """What one process does; ``told`` grows with what was acknowledged."""
    writer = StoreWriter(root, "main", disk=disk)
    for step in range(2):
        for number in range(3):
            record = call(number, step=step)
            writer.publish([record])
            told.append(record)
        writer.close_step(step)
    writer.close_step(2, drop_before=1)


def operations() -> int:
    disk = DyingDisk()
    with tempfile.TemporaryDirectory() as folder:
        script(Path(folder) / "store", disk, [])
    return disk.operations


@pytest.mark.parametrize("at", range(operations()))
def test_a_writer_killed_at_any_operation_loses_and_doubles_nothing(tmp_path: Path, at: int) -> None:
    root = tmp_path / "store"
    told: list[Record] = []
    with pytest.raises(Killed):
        script(root, DyingDisk(at), told)
    tail = Tail(root) if root.exists() else None
    before = records(tail.poll()) if tail else []
    assert len({record.place for record in before}) == len(before)
    again = StoreWriter(root, "main")
    possible = [call(number, step=step) for step in range(2) for number in range(3)]
    kept = again.recovered
    assert kept == [record for record in possible if record in kept]
    dropped = [record for record in told if record not in kept]
    if dropped:  # on purpose, at the end
        assert len(told) == 6
        assert dropped == [record for record in told if record.key.step < 1]
    assert records(Tail(root).poll()) == kept
    if tail:
        assert set(records(tail.poll())) >= set(kept) - set(before)
    again.publish([call(7)])
    assert records(Tail(root).poll()) == [*kept, call(7)]


@pytest.mark.parametrize("at", range(operations()))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_an_error_at_any_operation_is_told_and_loses_nothing(tmp_path: Path, at: int, code: int) -> None:
    root = tmp_path / "store"
    told: list[Record] = []
    with pytest.raises(MgrpoError, match="no space left" if code != errno.EIO else r"Input/output error.*HINT"):
        script(root, DyingDisk(at, code), told)
    again = StoreWriter(root, "main")
    assert len(told) == 6 or set(told) <= set(again.recovered)
    assert records(Tail(root).poll()) == again.recovered
    assert not list(root.rglob("*.tmp"))


def test_a_passing_error_is_met_by_a_second_try(tmp_path: Path) -> None:
    class Stale(Disk):
        last = ""

        def rename(self, source: Path, target: Path) -> None:
            if self.last != target.name:
                self.last = target.name
                raise OSError(errno.ESTALE, "Stale file handle")
            super().rename(source, target)

    told: list[Record] = []
    script(tmp_path / "store", Stale(), told)
    assert len(told) == 6
    assert not list(tmp_path.rglob("*.tmp"))


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
    with pytest.raises(DataError, match=r"has not come in 10 s: .*(0000000001|not record 1).*HINT: .*restart its role"):
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
        with pytest.raises(DataError, match=r"is no store, but holds 'thesis.tex'"):
            make()
    with pytest.raises(DataError, match="there is no store at"):
        Tail(tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_store_of_another_version_is_told(tmp_path: Path) -> None:
    root = tmp_path / "store"
    StoreWriter(root, "main")
    (root / "store.json").write_text('{"version": 1}')
    with pytest.raises(DataError, match="of version 1; this package reads version 2"):
        Tail(root)
