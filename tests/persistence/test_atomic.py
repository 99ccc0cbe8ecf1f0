import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.persistence.atomic import alone, atomic_folder, atomic_path


class StoppedHereError(Exception):
    """What a test raises in the middle of writing."""


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """What was synced and renamed, in order, by name without the random part."""
    seen: list[tuple[str, str]] = []
    paths: dict[int, Path] = {}
    opened, fsync, replace = os.open, os.fsync, os.replace

    def spy_open(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = opened(path, flags, mode)
        paths[descriptor] = Path(path)
        return descriptor

    def spy_fsync(descriptor: int) -> None:
        seen.append(("sync", kind(paths[descriptor])))
        fsync(descriptor)

    def spy_rename(source: Path, goal: Path) -> None:
        seen.append(("rename", kind(goal)))
        replace(source, goal)

    def kind(path: Path) -> str:
        return path.suffix or path.name

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", spy_open)
        patch.setattr(os, "fsync", spy_fsync)
        for name in ("replace", "rename"):
            patch.setattr(os, name, spy_rename)
        yield seen


def write_and_fail(target: Path, error: BaseException | type[BaseException]) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error


def write_folder(target: Path, text: str, then: Callable[[], None]) -> None:
    with atomic_folder(target) as temporary:
        (temporary / "weights").write_text(text)
        then()


def stop() -> None:
    raise StoppedHereError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, events: list[tuple[str, str]]
) -> None:
    with atomic_path(tmp_path / "home" / "state") as temporary:
        assert temporary.parent == tmp_path / "home"
        temporary.write_text("new")
        assert not (tmp_path / "home" / "state").exists()
    assert (tmp_path / "home" / "state").read_text() == "new"
    assert events == [("sync", ".tmp"), ("rename", "state"), ("sync", "home")]


def test_everything_in_a_folder_is_synced_before_it_is_renamed(tmp_path: Path, events: list[tuple[str, str]]) -> None:
    with atomic_folder(tmp_path / "adapter") as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "weights").write_text("new")
    assert (tmp_path / "adapter" / "deep" / "weights").read_text() == "new"
    renamed = events.index(("rename", "adapter"))
    assert set(events[:renamed]) == {("sync", "deep"), ("sync", "weights"), ("sync", ".tmp")}
    assert events[renamed + 1 :] == [("sync", tmp_path.name)]


@pytest.mark.parametrize("error", [StoppedHereError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "state"
    target.write_text("old")
    with pytest.raises(error):
        write_and_fail(target, error)
    assert (target.read_text(), names(tmp_path)) == ("old", ["state"])


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    write_folder(target, "old", lambda: None)
    with pytest.raises(StoppedHereError):
        write_folder(target, "half", stop)
    assert ((target / "weights").read_text(), names(tmp_path)) == ("old", ["adapter"])


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for files in (("a", "b"), ("c",)):
        with atomic_folder(tmp_path / "adapter") as temporary:
            for name in files:
                (temporary / name).write_text(name)
    assert names(tmp_path / "adapter") == ["c"]
    assert names(tmp_path) == ["adapter"]


def test_a_folder_whose_rename_fails_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "adapter"
    write_folder(target, "old", lambda: None)
    rename = os.rename

    def refuse(source: Path, goal: Path) -> None:
        if Path(source).suffix == ".tmp":
            raise PermissionError(errno.EACCES, "no")
        rename(source, goal)

    with pytest.raises(PermissionError):
        write_folder(target, "new", lambda: monkeypatch.setattr(os, "rename", refuse))
    assert ((target / "weights").read_text(), names(tmp_path)) == ("old", ["adapter"])


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=["disk", "quota", "wrapped"])
def test_a_disk_that_fills_while_writing_is_told_with_the_path_and_the_old_file_stays(
    tmp_path: Path, error: Exception
) -> None:
    target = tmp_path / "state"
    target.write_text("old")
    with pytest.raises(MgrpoError, match=r"state.*HINT: free some space") as raised:
        write_and_fail(target, error)
    assert raised.value.__cause__ is error
    assert (target.read_text(), names(tmp_path)) == ("old", ["state"])


def test_a_disk_that_turns_out_full_on_sync_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise FULL[0]

    target = tmp_path / "adapter"
    write_folder(target, "old", lambda: None)
    with pytest.raises(MgrpoError, match=r"adapter.*HINT: free some space"):
        write_folder(target, "new", lambda: monkeypatch.setattr(os, "fsync", fail))
    assert ((target / "weights").read_text(), names(tmp_path)) == ("old", ["adapter"])


def test_a_device_that_is_really_full_is_recognised(tmp_path: Path) -> None:
    def fill() -> None:
        with open("/dev/full", "w") as full:
            full.write("x")

    with pytest.raises(MgrpoError, match="no space left"):
        write_folder(tmp_path / "x", "half", fill)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        write_and_fail(tmp_path / "x", PermissionError(errno.EACCES, "no"))


COUNT = """
import sys, threading, time
from pathlib import Path
from mgrpo_lightning.persistence.atomic import alone, atomic_path
path = Path(sys.argv[1])
def count():
    for _ in range(20):
        with alone(path.parent / "locks" / path.name):
            number = int(path.read_text())
            time.sleep(0.001)
            with atomic_path(path) as temporary:
                temporary.write_text(str(number + 1))
threads = [threading.Thread(target=count) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
"""Counts up in a file, in two threads."""


def test_who_changes_a_file_alone_loses_nothing_of_other_processes_and_threads(tmp_path: Path) -> None:
    (path := tmp_path / "number").write_text("0")
    counting = [subprocess.Popen([sys.executable, "-c", COUNT, str(path)]) for _ in range(2)]
    assert [process.wait(60) for process in counting] == [0, 0]
    assert path.read_text() == "80"


def test_a_filesystem_without_locks_is_written_to_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(number: int) -> Callable[[object, int], None]:
        def flock(file: object, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        return flock

    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    with alone(tmp_path / "locks" / "file"):
        pass
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), alone(tmp_path / "locks" / "file"):
        pass
