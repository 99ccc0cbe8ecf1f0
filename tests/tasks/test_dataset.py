"""DatasetTask: what it reads from folders and files, without a network, and errors that name split, row and column."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.records.journal import read_groups
from mgrpo_lightning.tasks import DatasetTask, JsonlTask
from tests.support.team_file import write_team_file
from tests.support.tiny import WORDS, make_speaking_model

datasets = pytest.importorskip("datasets", reason="it is in the extra `datasets`")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        datasets.Dataset.from_list([dict(row) for row in rows]).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


CAPITALS = [
    {"question": "Capital of France?", "answer": "Paris"},
    {"question": "Capital of Chad?", "answer": "N'Djamena"},
]


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_folder_has_its_own_splits(tmp_path: Path, ending: str) -> None:
    for split, rows in (("train", CAPITALS), ("test", CAPITALS[:1])):
        write(tmp_path / "capitals" / f"{split}.{ending}", rows)
    task = DatasetTask(str(tmp_path / "capitals"))
    first, second = task.questions("train")
    assert (first.id, first.text, first.answers, first.level) == ("row 1", "Capital of France?", ("Paris",), "")
    assert second.id == "row 2"
    assert [len(task.questions(split)) for split in ("validation", "test")] == [0, 1]
    assert asyncio.run(task.correct(first, "paris.")) == 1.0


def test_columns_splits_slices_and_configurations_are_named(tmp_path: Path) -> None:
    rows = [
        {"key": n, "ask": f"q{n}", "gold": {"value": n / 2, "others": ["x", "y"]}, "hops": n, "lang": None}
        for n in range(4)
    ]
    for name in ("easy", "hard"):
        write(tmp_path / "d" / name / "all.jsonl", [{**row, "ask": f"{name} {row['ask']}"} for row in rows])
    configs = [
        {"config_name": name, "data_files": [{"split": "every", "path": f"{name}/all.jsonl"}]}
        for name in ("easy", "hard")
    ]
    (tmp_path / "d" / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    task = DatasetTask(
        str(tmp_path / "d"),
        name="hard",
        split={"train": "every[:3]", "validation": "every[3:]"},
        question="ask",
        answer="gold.value",
        id="key",
        level="hops",
        table_by=["lang"],
    )
    assert [question.text for question in task.questions("train")] == ["hard q0", "hard q1", "hard q2"]
    (last,) = task.questions("validation")
    assert (last.id, last.answers, last.level, last.metadata) == ("3", ("1.5",), "3", {"lang": ""})
    assert task.table_by == ("lang",)
    lists = DatasetTask(str(tmp_path / "d"), "easy", {"test": "every"}, question="ask", answer="gold.others")
    assert [question.answers for question in lists.questions("test")] == [("x", "y")] * 4
    with pytest.raises(DataError, match=r"cannot be loaded: .*easy.*hard"):
        DatasetTask(str(tmp_path / "d"), question="ask")


CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Answer in French."},
    {"role": "user", "content": "Who wrote it?"},
    {"role": "assistant", "content": "Mark Twain."},
    {"role": "user", "content": [{"type": "text", "text": "When was he"}, {"type": "text", "text": "born?"}]},
    {"role": "assistant", "content": "1835"},
]
ASKED = "system: Answer in French.\n\nuser: Who wrote it?\n\nassistant: Mark Twain.\n\nWhen was he\nborn?"


def test_the_last_user_message_is_the_question_and_the_others_stand_above_it(tmp_path: Path) -> None:
    (line,) = JsonlTask(str(write(tmp_path / "chat.jsonl", [{"question": CHAT, "answer": 1835}]))).questions("train")
    assert (line.text, line.answers) == (ASKED, ("1835",))
    plain = [
        {**message, "content": "When?" if isinstance(message["content"], list) else message["content"]}
        for message in CHAT
    ]
    path = write(
        tmp_path / "p.parquet", [{"prompt": plain[:1] + plain[3:], "answer": 1835}, {"prompt": plain[3:4], "answer": 3}]
    )
    first, second = DatasetTask(str(path), question="prompt").questions("train")
    assert first.text == "system: Answer in French.\n\nWhen?"
    assert second.text == "When?"


@pytest.mark.parametrize(
    ("chat", "problem"),
    [
        (CHAT[:1], "no message has the role 'user'"),
        ([], "no message has the role 'user'"),
        ([{"role": "user", "content": " "}], "message 1, the question, is empty"),
        (["Who?"], "message 1 is 'Who\\?', not an object"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "message 1 has the content .*image_url.*, not text"),
        ([{"role": "tool", "content": "x"}, *CHAT], "message 1 uses a tool before the last user message"),
        ([{"role": "assistant", "tool_calls": [{}]}, *CHAT], "message 1 uses a tool before the last user message"),
    ],
)
def test_a_chat_without_a_question_is_named(tmp_path: Path, chat: list[Any], problem: str) -> None:
    path = write(tmp_path / "bad.jsonl", [{"question": "q", "answer": "a"}, {"question": chat, "answer": "a"}])
    with pytest.raises(DataError, match=rf"bad.jsonl, line 2, column 2: 'question' is a chat, and {problem}"):
        JsonlTask(str(path))


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"question": "prompt"}, DataError, r"split train has no column 'prompt', but \['answer', 'question', 'yes'\]"),
        ({"answer": "answers.text"}, DataError, "split train has no column 'answers'"),
        ({"answer": "yes"}, DataError, "split train, row 1: 'yes' is True, not text, a number or a list"),
        ({"id": "answer"}, DataError, "split train, row 2: an earlier question has the id 'a' too"),
        ({"split": {"dev": "train"}}, ConfigurationError, "has the key 'dev'"),
        ({"split": {"train": "training"}}, DataError, r"cannot be loaded \(split training\): .*training"),
        ({"split": {"train": "train[:0]"}}, DataError, "cannot be loaded .*no data"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], problem: str
) -> None:
    path = write(tmp_path / "d" / "train.jsonl", [{"question": f"q{n}", "answer": "a", "yes": True} for n in range(2)])
    with pytest.raises(error, match=rf"{problem}.*HINT"):
        DatasetTask(str(path.parent), **options)


def test_a_data_set_that_is_not_there_and_one_without_a_training_split_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nobody/nothing cannot be loaded: .*HINT"):
        DatasetTask("nobody/nothing")
    write(tmp_path / "d" / "test.jsonl", CAPITALS)
    with pytest.raises(DataError, match=r"has no split 'train', but \['test'\].*HINT: .*train: NAME"):
        DatasetTask(str(tmp_path / "d"))


def test_code_in_a_folder_never_runs(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write(folder / "train.jsonl", CAPITALS)
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for path in (folder, folder / "mine.py"):
        with pytest.raises(DataError, match=r"cannot be loaded: .*scripts.*mine\.py"):
            DatasetTask(str(path))
    assert not (tmp_path / "ran").exists()


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigurationError, match=r"package datasets.*HINT: run pip install 'mgrpo-lightning\[datasets\]'"
    ):
        DatasetTask("owner/name")


def test_the_subclass_of_the_guide_reads_gsm8k(root: Path, tmp_path: Path) -> None:
    guide = (root / "docs" / "guides" / "task.md").read_text(encoding="utf-8")
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "GSM8K" in code)
    found: dict[str, Any] = {}
    exec(code, found)
    rows = [{"question": "How many?", "answer": "48/2 = <<48/2=24>>24 clips.\n#### 1,024"}]
    path = write(tmp_path / "main.parquet", rows)
    (question,) = found["GSM8K"](str(path)).questions("train")
    assert question.answers == ("1024",)


@pytest.mark.usefixtures("own_argv")
def test_a_team_is_trained_on_a_folder(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": f"word {n}"}], "solution": word} for n, word in enumerate(WORDS)]
    write(tmp_path / "words" / "train.parquet", rows)
    write(tmp_path / "words" / "held_out.parquet", rows[:2])
    team = write_team_file(tmp_path, make_speaking_model(tmp_path / "model"), objective="mgrpo", max_steps=1)
    options = {
        "path": str(tmp_path / "words"),
        "question": "prompt",
        "answer": "solution",
        "split": "{train: train, validation: 'train[:2]'}",
        "tools": "[tests.support.toy.search]",
    }
    words = ["--data.task=mgrpo_lightning.tasks.DatasetTask"]
    words += [f"--data.task.{key}={value}" for key, value in options.items()]
    words += ["--model.roles.searcher.reward={expert: 0, correct_main: 0.9}", "--data.validation.questions=2"]
    main(["fit", "--config", str(team), *words])
    groups = read_groups(tmp_path / "runs" / "toy" / "journal" / "step-000000.parquet")
    assert all(group.question.text.startswith("word ") and group.question.answers[0] in WORDS for group in groups)
