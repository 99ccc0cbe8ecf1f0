"""Files of a benchmark's folder: every shard of a split, one edition, and errors that name what is in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.benchmarks.base import Benchmark
from mgrpo_lightning.tasks.benchmarks.dataset_files import Source, files_of, read_rows
from tests.tasks.benchmarks.files import write_rows

SOURCE = Source("Invented", "nowhere", "no terms", [["n"]])


def numbers(folder: Path, *patterns: str) -> list[int]:
    return [row["n"] for row in read_rows(files_of(folder, patterns, SOURCE), SOURCE)]


def test_all_shards_are_read_in_order(tmp_path: Path) -> None:
    for shard in (1, 0, 2):
        rows = [{"n": 10 * shard + n} for n in range(2)]
        write_rows(tmp_path / f"data/train-{shard:05}-of-00003.parquet", rows)
    write_rows(tmp_path / "data/test-00000-of-00001.parquet", [{"n": 99}])
    assert numbers(tmp_path, "train-*", "data/train-*.parquet") == [0, 1, 10, 11, 20, 21]
    assert numbers(tmp_path / "data/train-00001-of-00003.parquet", "*") == [10, 11], "a file is taken as it is"


def test_a_split_without_one_of_its_shards_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "train-00001-of-00003.parquet", [{"n": 1}])
    with pytest.raises(DataError, match=r"no train-00000-of-00003\.parquet and no train-00002-of-00003\.parquet"):
        numbers(tmp_path, "train*")


@pytest.mark.parametrize(
    "names",
    [
        ["a.jsonl", "b.jsonl"],
        ["a-00000-of-00001.jsonl", "b-00000-of-00001.jsonl"],
        ["a-00000-of-00001.jsonl", "b.jsonl"],
        ["a-00000-of-00001.jsonl", "a-00000-of-00002.jsonl"],
    ],
)
def test_several_files_are_refused_by_name(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write_rows(tmp_path / name, [{"n": 1}])
    with pytest.raises(
        DataError, match=rf"has several files of rows: {names[0]} and {names[1]}\. HINT: give the path of one"
    ):
        numbers(tmp_path, "*.jsonl")


def test_the_first_pattern_that_matches_decides(tmp_path: Path) -> None:
    write_rows(tmp_path / "b.jsonl", [{"n": 2}])
    write_rows(tmp_path / "a.jsonl", [{"n": 1}])
    assert numbers(tmp_path, "c*", "b*", "a*") == [2]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.txt", "a"])
@pytest.mark.parametrize("content", ['{"n": 1}\n\n{"n": 2}\n', '\ufeff{"n": 1}\n{"n": 2}', ' [{"n": 1},\n {"n": 2}]'])
def test_a_list_or_lines_may_be_in_a_file_of_any_name(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert numbers(tmp_path / name, "*") == [1, 2]


class Counted(str):
    """A text that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)


def test_an_id_that_is_there_twice_is_found_in_one_pass() -> None:
    ids = [*(f"q{n}" for n in range(2000)), "q1999"]
    with pytest.raises(DataError, match=r"two questions have the id 'q1999'"):
        Benchmark([Question(Counted(name), "Which?", ("it",)) for name in ids])
    assert Counted.compared < 3 * len(ids)
