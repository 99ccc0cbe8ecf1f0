"""GAIA: both layouts, filters, attachments, and its official rule."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mgrpo_lightning.errors import DataError, ScoringError, ToolError
from mgrpo_lightning.tasks.benchmarks import Gaia
from tests.tasks.benchmarks.files import write_rows


def rows(level: type[int] | type[str]) -> list[dict[str, Any]]:
    def row(name: str, of: int, answer: str, file: str = "") -> dict[str, Any]:
        return {
            "task_id": name,
            "Question": f"What is {name}?",
            "Level": level(of),
            "Final answer": answer,
            "file_name": file,
            "file_path": f"2023/validation/{file}" if file else "",
            "Annotator Metadata": {"Steps": "1"},
        }

    return [row("a", 1, "1234"), row("b", 2, "red; blue"), row("c", 3, "Ångström", "c.csv")]


@pytest.fixture(params=["parquet", "jsonl"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / f"2023/validation/metadata.{request.param}"
    write_rows(path, rows(str if request.param == "parquet" else int))
    path.with_name("c.csv").write_text("x,y\n1,2\n")
    return tmp_path


def test_both_layouts_hold_the_same_questions(folder: Path) -> None:
    task = Gaia(str(folder))
    found = task.questions("validation")
    assert [(q.id, q.answers, q.level) for q in found] == [
        ("a", ("1234",), "level 1"),
        ("b", ("red; blue",), "level 2"),
        ("c", ("Ångström",), "level 3"),
    ]
    assert found[0].text == "What is a?"
    path = str(folder / "2023/validation/c.csv")
    assert found[2].text == f"What is c?\n\nThe file c.csv belongs to this question. Its path is {path}"
    assert found[2].metadata == {"file": "c.csv", "path": path}
    assert task.questions("test") == found
    assert task.questions("train") == []


def test_levels_and_questions_without_a_file_can_be_picked(folder: Path) -> None:
    assert [q.id for q in Gaia(str(folder), levels=[2, 3]).questions("validation")] == ["b", "c"]
    assert [q.id for q in Gaia(str(folder), text_only=True).questions("validation")] == ["a", "b"]
    (folder / "2023/validation/c.csv").unlink()
    assert len(Gaia(str(folder), text_only=True).questions("test")) == 2, "files of questions that are not asked"
    with pytest.raises(DataError, match="no question that passes"):
        Gaia(str(folder), levels=[3], text_only=True)


def test_the_attachment_of_a_question_can_be_read_and_no_other_file(folder: Path) -> None:
    attachment = Gaia(str(folder)).tools()["attachment"]
    for name in ("c.csv", str(folder / "2023/validation/c.csv")):
        assert asyncio.run(attachment(name=name)) == "x,y\n1,2\n"
    for name in ("metadata.jsonl", "../../etc/passwd", "/etc/passwd", "d.csv"):
        with pytest.raises(ToolError, match="there is no file"):
            asyncio.run(attachment(name=name))


def test_the_hub_s_cache_of_links_is_read(tmp_path: Path) -> None:
    cached = tmp_path / "snapshots/1f/2023/validation"
    cached.mkdir(parents=True)
    blobs = {"metadata.jsonl": "a1", "c.csv": "b2"}
    write_rows(tmp_path / "blobs/rows.jsonl", rows(int)).rename(tmp_path / "blobs/a1")
    (tmp_path / "blobs/b2").write_text("x,y\n")
    for name, blob in blobs.items():
        (cached / name).symlink_to(f"../../../../blobs/{blob}")
    task = Gaia(str(tmp_path / "snapshots/1f"))
    assert asyncio.run(task.tools()["attachment"](name="c.csv")) == "x,y\n"
    assert task.questions("validation")[2].metadata["path"] == str(cached / "c.csv"), "the blob's name has no ending"


@pytest.mark.parametrize("name", ["../secret.txt", "x/../../secret.txt", "{root}/2023/secret.txt", "..", "absent.txt"])
def test_a_row_that_names_a_file_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "2023/secret.txt").parent.mkdir()
    (tmp_path / "2023/secret.txt").write_text("secret")
    name = name.format(root=tmp_path)
    bad = [{**rows(int)[0], "file_name": name}]
    write_rows(tmp_path / "2023/validation/metadata.jsonl", bad)
    with pytest.raises(DataError, match="lacks the file"):
        Gaia(str(tmp_path))


@pytest.mark.parametrize(
    ("question", "answer", "score"),
    [(0, "$1,234", 1.0), (0, "1234.5", 0.0), (1, "Red;blue", 1.0), (1, "blue; red", 0.0), (2, "ångström!", 1.0)],
)
def test_answers_are_scored_by_the_official_rule(folder: Path, question: int, answer: str, score: float) -> None:
    task = Gaia(str(folder))
    assert asyncio.run(task.correct(task.questions("validation")[question], answer)) == score
    assert asyncio.run(task.correct(task.questions("validation")[question], None)) == 0.0


def test_answers_of_the_test_split_cannot_be_scored(tmp_path: Path) -> None:
    write_rows(tmp_path / "2023/test/metadata.jsonl", [{**rows(int)[0], "Final answer": "?"}])
    task = Gaia(str(tmp_path), part="test")
    with pytest.raises(ScoringError, match="leaderboard"):
        asyncio.run(task.correct(task.questions("test")[0], "?"))


def test_whoever_lacks_it_is_told_where_it_is_and_under_which_terms(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gaia-benchmark/GAIA.*accept its terms"):
        Gaia(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"has no 2023/validation/metadata\.parquet or .*accept its terms"):
        Gaia(str(tmp_path))
