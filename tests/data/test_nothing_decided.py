"""A fit or a validation in which nobody decides anything ends with the reason, and not on nothing with status 0."""

from __future__ import annotations

from pathlib import Path

import pytest
from typing_extensions import override

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ScoringError
from mgrpo_lightning.records.question import Question
from tests.support.chat_server import Server, said
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model
from tests.support.toy import ToyTask


class Undecided(ToyTask):
    """Nobody knows what is right."""

    @override
    async def correct(self, question: Question, answer: str | None) -> float:
        raise ScoringError("the judge gave no verdict: status 400. It says: no temperature of 0.")


class OnceDecided(Undecided):
    """Half of the questions are decided."""

    @override
    async def correct(self, question: Question, answer: str | None) -> float:
        return 1.0 if question.id in ("q0", "q1", "q2", "q3") else await super().correct(question, answer)


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    return write_team_file(tmp_path, make_tiny_model(tmp_path / "tiny"))


def spoken_by(server: Server) -> list[str]:
    """Options of a main behind an endpoint that always answers."""
    server.replies = [said("<answer>alpha</answer>")]
    role = "--model.roles.main"
    endpoint = f"{role}.endpoint={{url: {server.url}, model: planner, attempts: 1}}"
    return [endpoint, f"{role}.trainable=false", "--data.source=policy"]


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_run_in_which_nothing_is_decided_ends_with_the_reason(
    team: Path, command: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--config", str(team), f"--data.task={__name__}.Undecided", *spoken_by(server)])
    assert ended.value.code == 2
    words = capsys.readouterr().err
    assert "none of the last 4 answers could be decided" in words
    assert "It says: no temperature of 0. HINT" in words


def test_a_run_in_which_something_is_decided_goes_on(team: Path, server: Server) -> None:
    task = f"--data.task={__name__}.OnceDecided"
    main(["validate", "--config", str(team), task, "--data.validation.questions=8", *spoken_by(server)])


def test_a_main_that_its_endpoint_never_answers_ends_the_run_with_its_words(
    team: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    options = spoken_by(server)
    server.replies = [(400, '{"error": {"message": "use max_completion_tokens"}}', {})]
    with pytest.raises(SystemExit) as ended:
        main(["validate", "--config", str(team), "--data.validation.questions=8", *options])
    assert ended.value.code == 2
    assert "use max_completion_tokens" in capsys.readouterr().err
