"""HotpotQA, 2WikiMultihopQA and MuSiQue: their layouts, the world of their paragraphs, and their scoring."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mgrpo_lightning.errors import DataError, ScoringError, ToolError
from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.records.trajectory import Call, Key, Trajectory
from mgrpo_lightning.tasks.benchmarks import HotpotQA, MuSiQue
from tests.tasks.benchmarks.files import write_rows

HOTPOT: dict[str, Any] = {
    "_id": "h1",
    "question": "In which land was the maker of the Blue Boat born?",
    "answer": "The Netherlands",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Blue Boat", 0], ["Ann Brand", 1]],
    "context": [
        ["Blue Boat", ["The Blue Boat was made by Ann Brand.", " It sank in 1901."]],
        ["Ann Brand", ["Ann Brand made boats.", " She was born in the Netherlands."]],
        ["Blue boat", ["A dish of fish."]],
    ],
}
HUB = {
    **{key: HOTPOT[key] for key in ("question", "answer", "type", "level")},
    "id": "h1",
    "supporting_facts": {"title": ["Blue Boat", "Ann Brand"], "sent_id": [0, 1]},
    "context": {
        "title": [title for title, _ in HOTPOT["context"]],
        "sentences": [sentences for _, sentences in HOTPOT["context"]],
    },
}
AS_TEXT = {**HOTPOT, "context": json.dumps(HOTPOT["context"]), "supporting_facts": json.dumps([["Blue Boat", 0]])}


@pytest.mark.parametrize(("name", "row"), [("a.json", HOTPOT), ("a.parquet", HUB), ("a.jsonl", AS_TEXT)])
def test_every_layout_makes_the_same_world(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    task = HotpotQA(validation_path=str(write_rows(tmp_path / name, [row])))
    (question,) = task.questions("validation")
    assert (question.id, question.answers, question.level) == ("h1", ("The Netherlands",), "bridge hard")
    assert question.evidence[0].url == "wiki/blue-boat"
    tools = task.tools()
    assert "wiki/ann-brand | Ann Brand | Text: Paragraph 1" in asyncio.run(tools["search"](query="who was born"))
    page = asyncio.run(tools["visit"](url="wiki/ann-brand", section="Text"))
    assert page == "Ann Brand | Text\nAnn Brand made boats. She was born in the Netherlands."
    assert "fish" in asyncio.run(tools["visit"](url="wiki/blue-boat-2", section="Text")), "titles differ by case"
    with pytest.raises(ToolError, match="no page"):
        asyncio.run(tools["visit"](url="https://en.wikipedia.org/wiki/Blue_Boat", section="Text"))


def test_splits_share_a_world_and_its_pages_are_there_once(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.json", [HOTPOT])
    other = {**HOTPOT, "_id": "h2", "context": [["Ann Brand", ["Another text."]]], "supporting_facts": []}
    test = write_rows(tmp_path / "test.json", [other, HOTPOT])
    task = HotpotQA(str(train), test_path=str(test))
    assert [len(task.questions(split)) for split in ("train", "validation", "test")] == [1, 0, 2]
    page = asyncio.run(task.tools()["visit"](url="wiki/ann-brand", section="Text"))
    assert page.count("\n") == 2, "two different paragraphs, the one that is there twice once"


@pytest.mark.parametrize(
    ("answer", "score"), [("netherlands.", 1.0), ("A Netherlands", 1.0), ("Holland", 0.0), ("", 0.0), (None, 0.0)]
)
def test_answers_match_without_articles_and_punctuation(tmp_path: Path, answer: str | None, score: float) -> None:
    task = HotpotQA(test_path=str(write_rows(tmp_path / "a.json", [HOTPOT])))
    assert asyncio.run(task.correct(task.questions("test")[0], answer)) == score


MUSIQUE: dict[str, Any] = {
    "id": "2hop__1_2",
    "question": "Where was the maker of the Blue Boat born?",
    "answer": "Delft",
    "answer_aliases": ["City of Delft"],
    "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "Blue Boat", "paragraph_text": "Made by Ann Brand.", "is_supporting": True},
        {"idx": 1, "title": "Ann Brand", "paragraph_text": "Born in Delft.", "is_supporting": True},
        {"idx": 2, "title": "Red Boat", "paragraph_text": "Made by nobody.", "is_supporting": False},
    ],
    "question_decomposition": [
        {"id": 1, "question": "Blue Boat >> maker", "answer": "Ann Brand", "paragraph_support_idx": 0},
        {"id": 2, "question": "#1 >> birthplace", "answer": "Delft", "paragraph_support_idx": 1},
    ],
}


def musique(folder: Path) -> tuple[MuSiQue, Question]:
    task = MuSiQue(str(write_rows(folder / "a.jsonl", [MUSIQUE])))
    (question,) = task.questions("train")
    return task, question


def test_musique_knows_its_hops_and_accepts_aliases(tmp_path: Path) -> None:
    task, question = musique(tmp_path)
    assert question.level == "2 hops"
    assert [(hop.url, hop.value) for hop in question.evidence] == [
        ("wiki/blue-boat", "Ann Brand"),
        ("wiki/ann-brand", "Delft"),
    ]
    assert [asyncio.run(task.correct(question, answer)) for answer in ("the city of Delft", "delft", "Boat")] == [
        1,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("url", "report", "score"),
    [
        ("wiki/blue-boat", "ann brand", 1.0),
        ("wiki/blue-boat", "Delft", 0.0),
        ("wiki/red-boat", "Ann Brand", 0.0),
        ("wiki/ann-brand", None, 0.0),
    ],
)
def test_the_expert_wants_the_hop_read_and_found(tmp_path: Path, url: str, report: str | None, score: float) -> None:
    task, question = musique(tmp_path)
    trajectory = Trajectory("searcher", Key(0, 0, 0, 1), "find it", answer=report)
    trajectory.calls.append(Call(0, "visit", {"url": url, "section": "Text"}, "..."))
    assert asyncio.run(task.expert(question, trajectory)) == score


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({**HOTPOT, "context": "not JSON"}, r"h1 has context = 'not JSON'"),
        ({**HOTPOT, "context": {"title": ["a"]}}, "h1 has context"),
        ({**HOTPOT, "supporting_facts": [["Elsewhere", 0]]}, r"needs the pages \['Elsewhere'\]"),
        ({**HOTPOT, "answer": ["a"]}, r"answer = \['a'\]"),
    ],
)
def test_a_row_of_something_else_is_named(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        HotpotQA(str(write_rows(tmp_path / "a.json", [row])))


def without_answer(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as a test split has it."""
    gold = {"answer", "answer_aliases", "answerable", "type", "level", "supporting_facts", "question_decomposition"}
    return {key: value for key, value in row.items() if key not in gold}


@pytest.mark.parametrize(("kind", "row"), [(HotpotQA, HOTPOT), (MuSiQue, MUSIQUE)])
@pytest.mark.parametrize("answer", [{}, {"answer": None}, {"answer": ""}])
def test_a_test_split_without_answers_is_asked_but_neither_scored_nor_trained_on(
    tmp_path: Path, kind: type[HotpotQA | MuSiQue], row: dict[str, Any], answer: dict[str, Any]
) -> None:
    path = str(write_rows(tmp_path / "a.jsonl", [{**without_answer(row), **answer}]))
    (question,) = kind(test_path=path).questions("test")
    assert (question.text, question.answers, question.evidence) == (row["question"], ("?",), ())
    with pytest.raises(ScoringError, match="only the benchmark's authors know"):
        asyncio.run(kind(test_path=path).correct(question, "?"))
    with pytest.raises(DataError, match=f"{question.id} has no answer"):
        kind(path)


AUTHORS = {
    "hotpot_train_v1.1.json": "train",
    "hotpot_dev_distractor_v1.json": "validation",
    "hotpot_test_fullwiki_v1.json": "test",
}
WIKI = {"train.json": "train", "dev.json": "validation", "test.json": "test", "id_aliases.json": "none"}
SHARDS = {
    "distractor/train-00000-of-00002.parquet": "train",
    "distractor/train-00001-of-00002.parquet": "train",
    "distractor/validation-00000-of-00001.parquet": "validation",
    "fullwiki/train-00000-of-00001.parquet": "none",
    "fullwiki/test-00000-of-00001.parquet": "test",
}


@pytest.mark.parametrize("names", [AUTHORS, WIKI, SHARDS])
@pytest.mark.parametrize("hub", [False, True])
def test_a_folder_or_hub_name_gives_each_split_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: dict[str, str], hub: bool
) -> None:
    for number, (name, split) in enumerate(names.items()):
        row = HUB if name.endswith(".parquet") else HOTPOT
        write_rows(tmp_path / name, [{**row, "_id": f"{split} {number}", "id": f"{split} {number}"}])
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, repo_type: str(tmp_path))
    path = "invented/hotpot" if hub else str(tmp_path)
    task = HotpotQA(path, path, path)
    splits: tuple[Split, ...] = ("train", "validation", "test")
    assert {split: [question.id for question in task.questions(split)] for split in splits} == {
        split: [f"{split} {number}" for number, of in enumerate(names.values()) if of == split] for split in splits
    }


@pytest.mark.parametrize("folder", ["", "data/"])
def test_musique_s_folder_gives_the_answerable_half(tmp_path: Path, folder: str) -> None:
    for half in ("musique_ans", "musique_full"):
        for split in ("train", "dev", "test"):
            write_rows(tmp_path / f"{folder}{half}_v1.0_{split}.jsonl", [{**MUSIQUE, "id": f"{half} {split}"}])
    task = MuSiQue(*[str(tmp_path)] * 3)
    splits: tuple[Split, ...] = ("train", "validation", "test")
    assert [q.id for split in splits for q in task.questions(split)] == [
        "musique_ans train",
        "musique_ans dev",
        "musique_ans test",
    ]


def test_whoever_gives_a_folder_without_it_is_told_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no hotpot_dev_distractor_\*\.json or .*hotpotqa\.github\.io"):
        HotpotQA(validation_path=str(tmp_path))


def test_musique_rows_without_paragraphs_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2hop__1_2 has no paragraphs"):
        MuSiQue(str(write_rows(tmp_path / "a.jsonl", [{**MUSIQUE, "paragraphs": [{"title": "x"}]}])))


@pytest.mark.parametrize("content", ["", "[]", "[1]", "{", "\xff"])
def test_a_file_that_is_cut_off_is_one_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.json"):
        HotpotQA(str(path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"x")
    with pytest.raises(DataError, match=r"cannot read .*a\.pkl"):
        HotpotQA(str(tmp_path / "a.pkl"))


@pytest.mark.parametrize(
    ("kind", "row"), [(HotpotQA, {**HOTPOT, "context": [], "supporting_facts": []}), (MuSiQue, {"id": "h1"})]
)
def test_a_question_without_paragraphs_is_named(
    tmp_path: Path, kind: type[HotpotQA | MuSiQue], row: dict[str, Any]
) -> None:
    rows = [row if kind is HotpotQA else {**MUSIQUE, **row, "paragraphs": [], "question_decomposition": []}]
    with pytest.raises(DataError, match="question 'h1' has no paragraphs to search"):
        kind(validation_path=str(write_rows(tmp_path / "a.json", rows)))


def test_musique_reports_its_own_f1(tmp_path: Path) -> None:
    hotpot = HotpotQA(validation_path=str(write_rows(tmp_path / "b.json", [HOTPOT])))
    task, _ = musique(tmp_path)
    assert task.f1("yes indeed", ["yes"]) == pytest.approx(2 / 3)
    assert hotpot.f1("yes indeed", ["yes"]) == 0.0


def test_two_questions_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split validation has question 'h1' twice.*HINT"):
        HotpotQA(validation_path=str(write_rows(tmp_path / "a.json", [HOTPOT, HOTPOT])))


def test_half_of_a_surrogate_pair_is_no_obstacle(tmp_path: Path) -> None:
    broken = HOTPOT | {"question": "Who? \ud83d", "context": [["Blue Boat \ud83d", ["It sank. \ud83d"]]]}
    broken["supporting_facts"] = [["Blue Boat \ud83d", 0]]
    (tmp_path / "a.json").write_text(json.dumps([broken]))
    task = HotpotQA(validation_path=str(tmp_path / "a.json"))
    assert task.questions("validation")[0].text == "Who? ?"
    assert asyncio.run(task.tools()["visit"](url="wiki/blue-boat", section="Text")).endswith("It sank. ?")
