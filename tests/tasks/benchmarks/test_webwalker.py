"""WebWalkerQA: both spellings of its columns, and the judge that decides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.tasks.benchmarks import WebWalkerQA
from mgrpo_lightning.tasks.judge import Judge
from tests.tasks.benchmarks.files import write_rows

LAYOUTS: dict[str, dict[str, Any]] = {
    "capital.json": {
        "Question": "When?",
        "Answer": "It was in May.",
        "Root_Url": "https://site.example/",
        "Info": {"Type": "multi_source", "Difficulty_Level": "hard", "Lang": "en"},
    },
    "nested.jsonl": {
        "question": "When?",
        "answer": "It was in May.",
        "root_url": "https://site.example/",
        "info": {"type": "multi_source", "difficulty_level": "hard", "lang": "en"},
    },
    "flat.parquet": {
        "question": "When?",
        "answer": "It was in May.",
        "root_url": "https://site.example/",
        "type": "multi_source",
        "difficulty_level": "hard",
        "lang": "en",
    },
}


class FakeJudge(Judge):
    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/v1", "nobody")
        self.asked: list[str] = []

    @override
    async def correct(self, question: str, accepted: Sequence[str], answer: str) -> bool:
        self.asked.append(answer)
        return "May" in answer


def judge() -> Judge:
    return FakeJudge()


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_every_layout_holds_the_same_question(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / name, [LAYOUTS[name]])
    (question,) = WebWalkerQA(str(tmp_path), judge()).questions("validation")
    assert question.text == "When?\n\nStart at https://site.example/"
    assert question.answers == ("It was in May.",)
    assert question.level == "multi_source hard"
    assert question.metadata == {"root_url": "https://site.example/", "language": "en"}


def test_a_language_can_be_picked(tmp_path: Path) -> None:
    row = LAYOUTS["flat.parquet"]
    write_rows(tmp_path / "rows.jsonl", [row, {**row, "question": "何时?", "lang": "zh"}, {**row, "lang": ""}])
    kept = WebWalkerQA(str(tmp_path), judge(), languages=["zh"]).questions("test")
    assert [question.id for question in kept] == ["row 1"]


def test_of_several_splits_the_main_one_is_asked(tmp_path: Path) -> None:
    row = LAYOUTS["flat.parquet"]
    for split, count in (("main", 2), ("silver", 3), ("a", 1)):
        write_rows(tmp_path / f"data/{split}-00000-of-00001.parquet", [row] * count)
    assert len(WebWalkerQA(str(tmp_path), judge()).questions("test")) == 2
    (tmp_path / "data/main-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"data/a-\S+ and data/silver-"):
        WebWalkerQA(str(tmp_path), judge())


def test_the_judge_is_asked_only_where_nothing_else_decides(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [LAYOUTS["flat.parquet"]])
    fake = FakeJudge()
    task = WebWalkerQA(str(tmp_path), fake)
    (question,) = task.questions("test")
    answers = ("", "it was in may", "May", "June")
    assert [asyncio.run(task.correct(question, answer)) for answer in answers] == [0.0, 1.0, 1.0, 0.0]
    assert fake.asked == ["May", "June"]


@pytest.mark.parametrize("missing", ["question", "answer", "root_url"])
def test_a_row_without_what_it_needs_is_named(tmp_path: Path, missing: str) -> None:
    row = {key: value for key, value in LAYOUTS["flat.parquet"].items() if key != missing}
    write_rows(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError, match=f"row 1 has no '{missing}'"):
        WebWalkerQA(str(tmp_path), judge())
