"""Records are read back as they were added, by many writers at a time, into the same bytes whatever their order.

What a benchmark keeps says where it comes from.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import origin, records

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "records.jsonl.xz"
    monkeypatch.setattr(records, "FILE", path)
    return path


@settings(max_examples=30)
@given(st.dictionaries(st.text(), values, max_size=4))
def test_what_is_added_is_read_back(tmp_path_factory: pytest.TempPathFactory, added: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "FILE", tmp_path_factory.mktemp("records") / "records.jsonl.xz")
        records.add(added)
        assert records.load(records.FILE) == added


def test_a_benchmark_s_records_are_those_directly_below_its_name(file: Path) -> None:
    records.add({"lag/b-0": 1, "lag/a-0": 2, "lag/older/a-0": 3, "lagging/a-0": 4})
    assert list(records.read("lag").items()) == [("a-0", 2), ("b-0", 1)]
    assert records.read("lag/older") == {"a-0": 3}


def test_records_below_a_name_are_found_with_it(file: Path) -> None:
    records.add({"speed/a/b": 1, "speed/a": 2, "speed/ab": 3, "speed/a/b/c": 4})
    assert records.under("speed/a") == {"speed/a": 2, "speed/a/b": 1, "speed/a/b/c": 4}


def parsed(*words: str) -> str | None:
    parser = argparse.ArgumentParser()
    records.add_option(parser, "speed/a")
    name: str | None = parser.parse_args(words).record
    return name


def test_a_record_has_the_name_of_its_benchmark_or_one_below(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed() is None
    assert parsed("--record") == parsed("--record", "speed/a") == "speed/a"
    assert parsed("--record", "speed/a/b") == "speed/a/b"
    with pytest.raises(SystemExit):
        parsed("--record", "speed/ab")
    assert "must be speed/a or begin with speed/a/" in capsys.readouterr().err


def test_what_is_kept_says_where_it_comes_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", ["/some/python", "-m", "benchmarks.speed.a", "--name", "a b"])
    records.keep(None, [1], threads=2)
    assert not file.exists()
    records.keep("speed/a", [1], threads=2)
    (kept,) = records.load(file).values()
    assert kept["result"] == [1]
    assert kept["command"] == "python -m benchmarks.speed.a --name 'a b'"
    assert kept["machine"]["threads"] == 2
    assert kept["machine"]["memory_gib"] > 0
    assert {"python", "torch", "lightning"} <= kept["versions"].keys()
    assert f"torch {kept['versions']['torch']}" in origin.where(kept)
    assert origin.when(kept).startswith("`python -m benchmarks.speed.a --name 'a b'`, 2 threads, commit ")


def test_a_changed_tree_is_told_from_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "ROOT", tmp_path)
    assert origin.commit() is None
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    (tmp_path / "docs").mkdir()
    for name in ("code.py", "docs/page.md"):
        (tmp_path / name).write_text("1")
    for words in (("init", "--quiet"), ("add", "."), (*identity, "commit", "--quiet", "-m", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    clean = origin.commit()
    assert clean
    (tmp_path / "docs" / "page.md").write_text("2")
    assert origin.commit() == clean
    (tmp_path / "code.py").write_text("2")
    assert origin.commit() == f"{clean}+"


def test_the_order_in_which_records_come_leaves_no_trace(file: Path) -> None:
    records.add({"a/0": {"x": 1, "y": [math.pi]}, "a/1": 2})
    first = file.read_bytes()
    file.unlink()
    records.add({"a/1": 2})
    records.add({"a/0": {"x": 1, "y": [math.pi]}})
    assert file.read_bytes() == first


def test_no_record_of_several_writers_is_lost(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: records.add({f"a/{number}": number}), range(24)))
    assert records.load(file) == {f"a/{number}": number for number in range(24)}


def test_what_is_recorded_is_not_made_again(file: Path) -> None:
    records.add({"a/0": "first"})
    records.recorded("a/0", lambda: pytest.fail("made again"))
    records.recorded("a/1", lambda: "second")
    assert records.load(file) == {"a/0": "first", "a/1": "second"}


def test_two_files_are_merged_unless_they_disagree(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records.add({"a/0": 0, "a/1": 1})
    theirs = file.rename(file.with_name("theirs.jsonl.xz"))
    records.add({"a/1": 1, "a/2": 2})
    monkeypatch.setattr("sys.argv", ["records", "--merge", str(theirs)])
    records.main()
    assert capsys.readouterr().out.split() == ["a/0", "a/1", "a/2"]
    records.add({"a/1": "other"})
    with pytest.raises(SystemExit):
        records.main()
    assert "different records of a/1" in capsys.readouterr().err
    assert records.load(file)["a/1"] == "other"


def test_one_record_is_shown_as_json(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records.add({"a/0": {"x": [0.1, None]}})
    monkeypatch.setattr("sys.argv", ["records", "a/0"])
    records.main()
    assert json.loads(capsys.readouterr().out) == {"x": [0.1, None]}
    monkeypatch.setattr("sys.argv", ["records", "a/1"])
    with pytest.raises(SystemExit):
        records.main()
    assert "no record 'a/1'" in capsys.readouterr().err


def test_the_file_of_the_repository_is_as_the_module_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = records.load(records.FILE)
    assert list(found) == sorted(found)
    monkeypatch.setattr(records, "FILE", tmp_path / "records.jsonl.xz")
    records.add(found)
    assert records.load(records.FILE) == found
