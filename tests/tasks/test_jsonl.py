"""JsonlTask: the layouts it reads, and errors that name file, line and column."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.tasks import JsonlTask, Question


def write(path: Path, *lines: str | bytes) -> str:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return str(path)


def test_reads_questions_in_order_with_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '\ufeff{"question": "Capital of France?", "answer": "Paris"}',
        "",
        '{"question": "Author?", "answer": ["Mark Twain", "Clemens"], "id": "q7", "level": "hard", "extra": 1}',
    )
    first, second = (task := JsonlTask(path)).questions("train")
    assert (first.id, first.text, first.answers, first.level) == ("line 1", "Capital of France?", ("Paris",), "")
    assert (second.id, second.answers, second.level) == ("q7", ("Mark Twain", "Clemens"), "hard")
    assert task.questions("validation") == task.questions("test") == []
    assert asyncio.run(task.correct(second, "clemens.")) == 1.0
    assert asyncio.run(task.correct(second, None)) == 0.0
    assert task.script(first, "main", first.text, 0, callees=[]) is None


def test_splits_have_their_own_files(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.jsonl", f'{{"question": "q{i}", "answer": "a"}}') for i in range(3)]
    task = JsonlTask(paths[0], paths[1], paths[2])
    assert [task.questions(split)[0].text for split in ("train", "validation", "test")] == ["q0", "q1", "q2"]


GOOD = '{"question": "q", "answer": "a"}'


@pytest.mark.parametrize(
    ("line", "column", "problem"),
    [
        ('{"question": "q", "answer": }', 29, "Expecting value"),
        ('{"question": "q"', 17, "Expecting ',' delimiter"),
        ('["q", "a"]', 1, "list, not an object"),
        ('{"answer": "a"}', 1, "'question' is None"),
        ('{"question": "q", "answer": true}', 19, "'answer' is True, not text, a number or a list"),
        ('{"question": "q", "answer": NaN}', 19, "'answer' is nan"),
        ('{"question": "q", "answer": [3, null]}', 19, r"'answer' is \[3, None\]"),
        (r'{"question": "q", "answer": "\u200b"}', 19, "'answer' is '"),
        ('{"question": 7, "answer": "a"}', 2, "'question' is 7"),
        ('{"question": "q", "answer": []}', 19, r"'answer' is \[\]"),
        ('{"question": "q", "answer": ["a", ""]}', 19, "'answer' is"),
        ('{"answer": "a", "question": " "}', 17, "'question' is ' '"),
        ('{"question": "q", "answer": "a", "level": [1]}', 34, r"'level' is \[1\]"),
        ('{"question": "q", "answer": "a", "id": "line 1"}', 1, "an earlier question has the id 'line 1'"),
        (b'{"question": "\xff"}', 15, "0xff is not UTF-8"),
        ("[" * 100_000, 1, "the line cannot be read"),
        ('{"question": "q", "answer": ' + "1" * 5000 + "}", 1, "the line cannot be read"),
        (r'{"question": "q \ud83d", "answer": "a"}', 2, "'question' has half of a surrogate pair"),
        (r'{"question": "q", "answer": ["a", "\ud83d"]}', 19, "'answer' has half of a surrogate pair"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str | bytes, column: int, problem: str) -> None:
    path = write(tmp_path / "bad.jsonl", GOOD, "", line)
    with pytest.raises(DataError, match=f"bad.jsonl, line 3, column {column}: .*{problem}"):
        JsonlTask(path)


def test_empty_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"empty.jsonl has no questions"):
        JsonlTask(write(tmp_path / "empty.jsonl", " ", ""))
    good = write(tmp_path / "good.jsonl", GOOD)
    with pytest.raises(DataError, match=r"nowhere.jsonl: No such file"):
        JsonlTask(good, str(tmp_path / "nowhere.jsonl"))


@pytest.mark.parametrize("name", ["rows.json", "rows.ndjson", "rows.txt", "rows"])
def test_numbers_are_texts_in_a_file_of_any_name(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path / name,
        '{"question": "q", "answer": 3, "id": 7, "level": 2, "year": 1901}',
        '{"question": "q", "answer": [3.5, 4.0, -1e3, "four"]}',
    )
    task = JsonlTask(path, table_by=["year"])
    first, second = task.questions("train")
    assert (first.id, first.answers, first.level, first.metadata) == ("7", ("3",), "2", {"year": "1901"})
    assert second.answers == ("3.5", "4", "-1000", "four")
    assert asyncio.run(task.correct(first, "3")) == 1.0


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=5))
def test_whatever_json_can_write_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    rows = [(f"q{q}", f"a{a}") for q, a in rows]
    lines = [json.dumps({"question": q, "answer": a}, ensure_ascii=True) for q, a in rows]
    path = write(tmp_path_factory.mktemp("rows") / "rows.jsonl", *lines)
    assert [(q.text, q.answers) for q in JsonlTask(path).questions("train")] == [(q, (a,)) for q, a in rows]


def test_tools_are_loaded_by_path_and_offered_by_name(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", GOOD)
    task = JsonlTask(good, tools=["tests.support.toy.search"])
    assert list(task.tools()) == ["search"]
    assert asyncio.run(task.tools()["search"](query="0")) == "word 0: alpha"
    with pytest.raises(ConfigurationError, match=r"two tools have the name 'search'"):
        JsonlTask(good, tools=["tests.support.toy.search", "tests.support.toy.search"])
    with pytest.raises(ConfigurationError, match=r"tool 'tests.support.toy.serch' cannot be imported"):
        JsonlTask(good, tools=["tests.support.toy.serch"])


@pytest.mark.parametrize("answers", ["Paris", ""])
def test_a_text_alone_is_no_list_of_its_letters(answers: Any) -> None:
    with pytest.raises(DataError, match=r"question 'q' has the answers .*HINT: give a tuple"):
        Question("q", "Which?", answers)
