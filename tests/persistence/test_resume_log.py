"""The file of an open step: what was put there comes back, however the writer died."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.persistence.resume_log import (
    ResumeLog,
    held_out_log_path,
    key_of,
    remove_closed,
    training_log_path,
)

VALUES = [{"ids": [1, 2], "logprobs": [-0.1, -1e-45]}, {"text": "é\ud800\n", "failed": True}, {}]


def filled(path: Path, identity: str = "adapters") -> bytes:
    memory = ResumeLog(path, identity)
    for number, value in enumerate(VALUES):
        memory.put(key_of(number), value)
    memory.close()
    return path.read_bytes()


def known(path: Path, identity: str = "adapters") -> list[Any]:
    memory = ResumeLog(path, identity)
    memory.close()
    assert memory.found == sum(memory.get(key_of(number)) is not None for number in range(len(VALUES) + 1))
    return [memory.get(key_of(number)) for number in range(len(VALUES))]


def test_what_was_put_comes_back_bit_for_bit(tmp_path: Path) -> None:
    filled(path := training_log_path(tmp_path, 3))
    assert path.name == "step-000003.jsonl"
    assert known(path) == VALUES


@given(floats=st.lists(st.floats(allow_nan=False, width=32)))
def test_log_probabilities_are_exact(floats: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("open") / "step-000000.jsonl"
    memory = ResumeLog(path, "")
    memory.put("key", {"logprobs": floats})
    memory.close()
    again = ResumeLog(path, "").get("key")
    assert again is not None
    assert [value.hex() for value in again["logprobs"]] == [value.hex() for value in floats]


def test_the_time_of_earlier_lives_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for life, seconds in enumerate((2.0, 0.5, 4.0)):
        memory = ResumeLog(tmp_path / "file", "")
        assert memory.seconds == (0.0, 2.0, 2.5)[life]
        now += seconds
        memory.put(key_of(life), {})
        now += 60  # in which nothing was finished, and the process died
        memory.close()
    assert ResumeLog(tmp_path / "file", "other adapters").seconds == 0.0


def test_a_file_cut_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole")
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        (path := tmp_path / "cut").write_bytes(whole[:length])
        lines = max(sum(end <= length for end in ends) - 1, 0)
        assert known(path) == VALUES[:lines] + [None] * (len(VALUES) - lines)
        assert filled(path).count(b"\n") >= len(ends)
        assert known(path) == VALUES


def test_a_damaged_line_and_what_stands_behind_it_is_dropped(tmp_path: Path) -> None:
    whole = filled(path := tmp_path / "file")
    second = whole.index(b"failed")
    path.write_bytes(whole[:second] + b"F" + whole[second + 1 :])
    assert known(path) == [VALUES[0], None, None]


def test_work_of_other_adapters_is_not_taken_up(tmp_path: Path) -> None:
    filled(path := tmp_path / "file")
    assert known(path, "other adapters") == [None] * len(VALUES)
    assert known(path) == [None] * len(VALUES), "the file is now the other's"


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, r"no space left on the disk while writing .*file.*HINT: free some space"),
        (errno.EIO, r"Input/output error while writing .*file.*HINT: check that the disk is mounted"),
    ],
)
def test_a_disk_that_fails_ends_the_run_and_is_told(tmp_path: Path, number: int, told: str) -> None:
    class Broken:
        def write(self, line: memoryview) -> int:
            raise OSError(number, os.strerror(number))

    memory = ResumeLog(tmp_path / "file", "")
    memory.close()
    memory._file = Broken()  # type: ignore[assignment]
    with pytest.raises(MgrpoError, match=told):
        memory.put("key", {})


def test_steps_in_a_checkpoint_are_removed_and_the_folder_with_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "resume_logs"
    remove_closed(folder, 5)
    for step in (3, 4, 5):
        filled(training_log_path(folder, step))
    remove_closed(folder, 4)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000004.jsonl", "step-000005.jsonl"]
    remove_closed(folder, 6)
    assert not folder.exists()


def test_a_validation_is_open_until_a_checkpoint_behind_it(tmp_path: Path) -> None:
    folder = tmp_path / "resume_logs"
    for step in (0, 4, 8):
        filled(held_out_log_path(folder, step, rank=64))
    remove_closed(folder, 0)
    assert len([*folder.iterdir()]) == 3, "there is no checkpoint yet"
    remove_closed(folder, 4)
    assert [path.name for path in folder.iterdir()] == ["held-out-000008-64.jsonl"]


def test_what_is_put_on_the_disk_is_told_if_it_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    memory = ResumeLog(tmp_path / "file", "")
    memory.sync()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MgrpoError, match="no space left on the disk"):
        memory.sync()
    memory.close()
