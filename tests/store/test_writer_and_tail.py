"""A store loses, doubles and reorders nothing: against a list, on disks that fail, and killed at every operation."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrpo_lightning.errors import DataError, MgrpoError
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.store.arrow_files import segments
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.record import Closed, Record
from mgrpo_lightning.store.tail import Tail
from mgrpo_lightning.store.writer import StoreWriter
from tests.store.faults import DyingDisk, Killed, NetworkDisk
from tests.store.said import call, records


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


def test_one_that_was_thought_dead_is_told_and_not_read(tmp_path: Path) -> None:
    root = tmp_path / "store"
    old = StoreWriter(root, "main")
    old.publish([call(0)])
    StoreWriter(root, "main")
    tail = Tail(root)
    with pytest.raises(MgrpoError, match=r"main-0 was started again while its incarnation 1.*HINT: run one process"):
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


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> int:
    largest = 20_000
    for module in ("writer", "arrow_files"):
        monkeypatch.setattr(f"mgrpo_lightning.store.{module}.LARGEST", largest)
    return largest


def test_no_segment_grows_larger_than_what_is_read(tmp_path: Path, small_segments: int) -> None:
    root = tmp_path / "store"
    said = [call(number, "word " * 300, step=step) for step in range(3) for number in range(20)]
    first = StoreWriter(root, "main")
    first.publish(said[:1])
    first.publish(said[1:40])
    slow, quick = Tail(root), Tail(root)
    quick.poll()
    first.close_step(1)
    first.publish(said[40:])
    second = StoreWriter(root, "main")
    assert second.recovered == said
    second.publish([call(0, step=3)])
    second.close_step(3)
    everything = [*said, call(0, step=3)]
    assert records(Tail(root).poll()) == records(slow.poll()) == records(quick.poll()) == everything
    sizes = [path.stat().st_size for path in (root / "writers").rglob("*.arrow")]
    assert small_segments / 2 < max(sizes) <= small_segments
    third = StoreWriter(root, "main")
    with pytest.raises(DataError, match=r"record.* 61 .* take \d+ bytes, more than 20000.* HINT: .*new_tokens"):
        third.publish([call(0, "x" * 30_000, step=4)])
    assert records(Tail(root).poll()) == everything


def test_what_was_carried_over_goes_with_its_last_step(tmp_path: Path) -> None:
    root = tmp_path / "store"
    StoreWriter(root, "main").publish([call(number, step=step) for step in range(10) for number in range(2)])
    writer = StoreWriter(root, "main")  # at step 7 again
    for step in (7, 8, 9, 10):
        writer.publish([call(5, step=step)])
        writer.close_step(step, drop_before=step)
        found = {(record.key.step, record.key.query) for record in records(Tail(root).poll())}
        assert found >= {(later, number) for later in range(step, 10) for number in range(2)}
    assert {record.key.step for record in records(Tail(root).poll())} == {10}


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
