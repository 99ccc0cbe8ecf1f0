"""``mgrpo ask``: questions from words, files and standard input; answers as text, JSON lines and trees."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from mgrpo_lightning.commands.ask import main
from mgrpo_lightning.errors import ConfigurationError, DataError

pytestmark = pytest.mark.usefixtures("own_argv")
TEAM = "configs/quickstart.yaml"
PERU, CHAD = "What is the capital of Peru?", "What is the capital of Chad?"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(root)


def test_answers_come_in_the_order_of_the_questions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main([TEAM, PERU, CHAD])
    assert capsys.readouterr().out == "Lima\nN'Djamena\n"
    (tmp_path / "questions.jsonl").write_text(f"{PERU}\n\n{json.dumps({'question': CHAD, 'id': 7})}\n")
    main([TEAM, "--file", str(tmp_path / "questions.jsonl"), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["question"], line["answer"]) for line in lines] == [(PERU, "Lima"), (CHAD, "N'Djamena")]
    assert lines[0]["calls"] == {"searcher": 1, "search": 1, "visit": 1}
    assert lines[0]["violations"] == []


def test_standard_input_is_read_line_by_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PERU}\n"))
    main([TEAM, "--tree"])
    assert capsys.readouterr().out.splitlines()[0] == f"main: {PERU}"


@pytest.mark.parametrize("line", ['{"text": "Which?"}', "{", '{"question"'])
def test_a_line_that_is_no_question_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "questions").write_text(f"{PERU}\n{line}\n")
    with pytest.raises(DataError, match=r"line 2 of .*questions is no JSON object with a `question`"):
        main([TEAM, "--file", str(tmp_path / "questions")])


def test_what_cannot_be_asked_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        main([TEAM, "--file", str(tmp_path / "nothing")])
    with pytest.raises(ConfigurationError, match="--temperature is -1"):
        main([TEAM, PERU, "--temperature=-1"])
    with pytest.raises(ConfigurationError, match="is not a run folder"):
        main([str(tmp_path), PERU])
    with pytest.raises(SystemExit):
        main([TEAM, PERU, "--file", "questions"])
    assert "not both" in capsys.readouterr().err
