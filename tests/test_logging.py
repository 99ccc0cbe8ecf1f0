"""Loggers by configuration: metrics, settings and tables of rollouts; the page of the metrics has all of them.

The tests with the real libraries need them: ``pip install wandb mlflow``, in an environment of their own.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgrpo_lightning.callbacks.rollout_tables import rollout_table
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.modules.play_metrics import ANSWER_SCORES, QUESTION_SCORES, play_metrics
from mgrpo_lightning.records.trajectory import Score
from mgrpo_lightning.tasks.judge_agreement import agreement_figures
from tests.callbacks.fakes import ROLES, make_groups
from tests.support.recording_loggers import RecordingMlflow, RecordingWandb
from tests.support.team_file import write_team_file

pytestmark = pytest.mark.usefixtures("own_argv")

RECORDING = "tests.support.recording_loggers"
COLUMNS = ["step", "query", "rollout", "question", "accepted answers", "answer"]
COLUMNS += ["reward of main", "reward of searcher", "calls", "tokens", "conversation"]


def fitted(folder: Path, model: Path, logger: Any, *options: str, **trainer: Any) -> Any:
    """A fit of two steps with a logger by configuration; returns its logger."""
    folder.mkdir(exist_ok=True)
    team = write_team_file(folder, model, **{"max_steps": 2, "logger": logger, **trainer})
    cli = make_cli(["--config", str(team), *options], run=False)
    cli.trainer.fit(cli.model, cli.datamodule)
    return cli.trainer.logger


def test_wandb_gets_metrics_settings_and_tables(tmp_path: Path, tiny: Path) -> None:
    logger = fitted(tmp_path, tiny, {"class_path": f"{RECORDING}.RecordingWandb"}, "--rollout_log.texts=1")
    assert isinstance(logger, RecordingWandb)
    logged = {name for _, metrics in logger.metrics for name in metrics}
    assert {"main/loss", "searcher/reward", "val/accuracy", "seconds/play"} <= logged
    (settings,) = logger.settings
    assert settings["main/optimizer/lr"] == 1e-2
    assert [(key, step) for key, _, _, step in logger.tables] == [
        ("train/rollouts", 0),
        ("train/rollouts", 1),
        ("validate/rollouts", 2),
    ]
    _, columns, rows, _ = logger.tables[0]
    assert columns == COLUMNS
    assert [row[:3] for row in rows] == [[0, 0, 0], [0, 0, 1]], "the K rollouts of the first group"
    assert all(row[3].startswith("word ") and row[-1].startswith("main: word ") for row in rows)


def test_mlflow_gets_tables_that_grow_and_settings_once(tmp_path: Path, tiny: Path) -> None:
    recording = {"class_path": f"{RECORDING}.RecordingMlflow"}
    logger = fitted(tmp_path, tiny, recording)
    assert isinstance(logger, RecordingMlflow)
    files = [file for _, _, file in logger.client.tables]
    assert files == ["rollouts/train-000000.json"] * 2 + ["rollouts/validate-000000.json"]
    run_id, table, _ = logger.client.tables[0]
    assert run_id == "the run"
    assert list(table) == COLUMNS
    assert {len(column) for column in table.values()} == {4}
    assert len(logger.settings) == 1
    team = write_team_file(tmp_path, tiny, max_steps=3, logger=recording)
    cli = make_cli(["--config", str(team)], run=False)
    last = tmp_path / "runs" / "toy" / "checkpoints" / "step=000002.ckpt"
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=last, weights_only=True)
    again: Any = cli.trainer.logger
    assert again.settings == [], "MLflow would refuse another value of a setting"


def test_several_loggers_and_none(tmp_path: Path, tiny: Path) -> None:
    both = [{"class_path": f"{RECORDING}.{name}"} for name in ("RecordingWandb", "RecordingMlflow")]
    fitted(tmp_path / "both", tiny, both)
    fitted(tmp_path / "none", tiny, False)
    for name in ("both", "none"):
        assert (tmp_path / name / "runs" / "toy" / "results.json").exists()


def test_a_row_says_what_was_asked_and_earned() -> None:
    groups = make_groups([[0.25, 1.0]], calls=2)
    groups[0].rollouts[1].scores[1] = Score(0.0, failed=True)
    groups[0].rollouts[1].scores[2] = replace(groups[0].rollouts[1].scores[2], total=0.5)
    table = rollout_table(groups, list(ROLES), 7)
    assert list(table) == COLUMNS
    assert (table["step"], table["rollout"]) == ([7, 7], [0, 1])
    assert table["reward of main"] == [0.25, 1.0]
    assert table["reward of searcher"] == [0.25, 0.5], "an undecided reward does not count"
    assert table["accepted answers"] == ["Mont Blanc"] * 2
    assert table["calls"] == [4, 4]
    assert rollout_table(make_groups([[1.0]], calls=0), list(ROLES), 0)["reward of searcher"] == [None]


def test_no_table_shows_an_encrypted_question(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgrpo_lightning.records.question.Question.encrypted", True)
    logger = fitted(tmp_path, tiny, {"class_path": f"{RECORDING}.RecordingWandb"}, max_steps=1)
    assert logger.tables == []


def test_every_metric_is_on_the_page(root: Path, tmp_path: Path, tiny: Path) -> None:
    page = (root / "docs" / "logging.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:ROLE/|val/|judge/|seconds/)?[a-z_0-9]+)`", page))
    named |= {name.rpartition("/")[2] for name in named}
    logger = fitted(tmp_path, tiny, {"class_path": f"{RECORDING}.RecordingWandb"}, max_steps=1)
    logged = {name for _, metrics in logger.metrics for name in metrics} | {*play_metrics(ROLES)._names}
    logged |= {f"judge/{name}" for name in agreement_figures([4, 1, 1, 1, 1])}
    logged |= {f"val/{name}" for name in (*ANSWER_SCORES, *QUESTION_SCORES)}
    missing = set()
    for name in logged - {"epoch"}:
        plain = re.sub(r"^val/(\w+)/\d even$", r"val/\1", name)
        plain = re.sub(r"\b(main|searcher)/", "ROLE/", plain).replace("val/ROLE/", "ROLE/")
        if plain not in named and plain.removeprefix("val/") not in named:
            missing.add(name)
    assert missing == set()


def test_the_configurations_of_the_page_are_read(root: Path) -> None:
    page = (root / "docs" / "logging.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert [block["trainer"]["logger"]["class_path"].rpartition(".")[2] for block in blocks] == [
        "WandbLogger",
        "MLFlowLogger",
    ]


def page_file(root: Path, folder: Path, model: Path, number: int) -> list[str]:
    """The words of a fit of the toy team with a logger as the page gives it."""
    page = (root / "docs" / "logging.md").read_text(encoding="utf-8")
    block = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[number]
    (folder / "logger.yaml").write_text(block)
    team = write_team_file(folder, model, max_steps=2)
    return ["fit", "--config", str(team), "--config", str(folder / "logger.yaml")]


def test_the_real_wandb_writes_tables_offline(
    root: Path, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    main(page_file(root, tmp_path, tiny, 0))
    (run,) = (tmp_path / "runs" / "toy" / "wandb").glob("offline-run-*")
    tables = [json.loads(path.read_text()) for path in (run / "files" / "media" / "table" / "train").iterdir()]
    assert [table["columns"] for table in tables] == [COLUMNS] * 2


def test_the_real_mlflow_keeps_metrics_settings_and_tables(
    root: Path, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    words = page_file(root, tmp_path, tiny, 1)
    main(words)
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("mgrpo").experiment_id])
    assert run.data.params["main/optimizer/lr"] == "0.01"
    assert "main/loss" in run.data.metrics
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    table = mlflow.load_table("rollouts/train-000000.json", run_ids=[run.info.run_id])
    assert list(table.columns) == COLUMNS
    assert sorted(set(table["step"])) == [0, 1]
    id_ = f"--trainer.logger.init_args.run_id={run.info.run_id}"
    main([*words, "--ckpt_path=last", "--trainer.max_steps=3", "--model.roles.main.optimizer.lr=0.02", id_])
    (run,) = client.search_runs([run.info.experiment_id])
    assert run.data.params["main/optimizer/lr"] == "0.01", "a resumed run does not change it"
