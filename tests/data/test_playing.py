"""What a play does beside playing: wrong demonstrations are told, and a tool that moves elsewhere moves no run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from mgrpo_lightning.commands.run_command import main
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model
from tests.support.toy import search as plain_search


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def fit(folder: Path, model: Path, **data: object) -> None:
    path = write_team_file(folder, model, max_steps=2, limit_val_batches=0, num_sanity_val_steps=0)
    team = yaml.safe_load(path.read_text())
    team["run"]["root"] = "runs"
    team["data"] |= data
    team["trainer"]["enable_progress_bar"] = True
    path.write_text(yaml.safe_dump(team))
    main(["fit", "--config", str(path)])


def test_a_demonstration_that_is_not_scored_right_is_told_once_and_counted(
    tmp_path: Path,
    model: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The toy's demonstrator gives up where its seed is odd."""
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, model, rollouts_per_query=8)
    told = [record.getMessage() for record in caplog.records if "wrong_demonstrations" in record.getMessage()]
    assert len(told) == 1
    assert "answers 'unknown', which is scored 0" in told[0]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert len(lines) == 2
    assert all("wrong demonstrations" in line for line in lines)


def move_away(query: str) -> str:
    os.chdir("/")
    return plain_search(query)


def test_a_tool_that_changes_the_working_directory_moves_no_run(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tests.support.toy.search", move_away)
    move_away.__name__ = "search"
    fit(tmp_path, model)
    run = tmp_path / "runs" / "toy"
    assert os.getcwd() == "/"
    assert sorted(path.name for path in (run / "journal").iterdir()) == ["step-000000.parquet", "step-000001.parquet"]
    assert (run / "results.json").exists()
    assert list((run / "checkpoints").glob("*.ckpt"))
    assert not Path("/runs").exists()
