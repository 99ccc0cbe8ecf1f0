"""The best checkpoint of a fit, of the team and of each role: what is kept beside the last, and what takes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from typing_extensions import override

from mgrpo_lightning.callbacks import BestCheckpoint, Results, TeamCheckpoint
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import DataError
from mgrpo_lightning.persistence.checkpoints import last_checkpoint, named_checkpoint
from tests.callbacks.fakes import ROLES, FakeData, FakeTeam, make_trainer, write_fake
from tests.support.team_file import write_team_file

TEAM = {0: 0.2, 1: 0.5, 2: 0.4, 3: 0.5, 4: 0.3}
"""Accuracy by step: the equal score at step 3 is not better."""
SEARCHER = {0: 0.9, 2: 0.1, 3: 1.5, 4: 1.0}
"""Its reward; at step 1 it is undecided."""


class Scored(FakeTeam):
    """A team with these scores; main's reward is never decided."""

    def __init__(self, team: Mapping[int, float] = TEAM) -> None:
        super().__init__()
        self.trained_roles = list(ROLES)
        self._scores = {"val/accuracy": team, "val/searcher/reward": SEARCHER}

    @override
    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        step = self.trainer.global_step
        self.log_dict({name: scores[step] for name, scores in self._scores.items() if step in scores}, batch_size=1)


@pytest.fixture(autouse=True)
def fake_export(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The exports of fake teams, whose policies have no weights."""
    if "tiny" not in request.fixturenames:
        monkeypatch.setattr("mgrpo_lightning.callbacks.adapter_export.write_adapter", write_fake)


def fit(root: Path, steps: int = 4, score: Any = "accuracy", team: FakeTeam | None = None) -> BestCheckpoint:
    """A fit that validates after every step, and before the first one; goes on if there is a checkpoint."""
    best = BestCheckpoint(score)
    settings = {"max_steps": steps, "max_epochs": -1, "val_check_interval": 1, "num_sanity_val_steps": -1}
    trainer = make_trainer(root, best, Results(), saver=TeamCheckpoint, **settings)
    folder = root / "checkpoints"
    start = last_checkpoint(folder) if folder.exists() else None
    trainer.fit(team or Scored(), datamodule=FakeData(steps=steps), ckpt_path=start, weights_only=True)
    return best


def steps(path: Path) -> int:
    step = torch.load(path, weights_only=True)["global_step"]
    assert isinstance(step, int)
    return step


def test_the_best_of_the_team_and_of_each_role_are_kept_beside_the_last(tmp_path: Path) -> None:
    fit(tmp_path)
    best = tmp_path / "best"
    assert steps(best / "checkpoint.ckpt") == 1
    assert steps(best / "roles" / "searcher" / "checkpoint.ckpt") == 3
    assert not (best / "roles" / "main").exists(), "its reward was never decided"
    exported = {str(path.parent.relative_to(best)): path.read_text() for path in best.rglob("adapter_config.json")}
    assert exported == {
        "adapters/main": "main 1",
        "adapters/searcher": "searcher 1",
        "roles/searcher/adapter": "searcher 3",
    }
    assert steps(last_checkpoint(tmp_path / "checkpoints")) == 4
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["best"] == {
        "team": {"accuracy": {"step": 1, "score": pytest.approx(0.5)}},
        "roles": {"searcher": {"step": 3, "score": pytest.approx(1.5)}},
    }
    assert Path(results["paths"]["best"]) == best


def test_the_untrained_team_may_be_the_best(tmp_path: Path) -> None:
    fit(tmp_path, steps=1, team=Scored({0: 0.9, 1: 0.5}))
    assert steps(tmp_path / "best" / "checkpoint.ckpt") == 0


def test_a_resumed_run_remembers_the_best_score(tmp_path: Path) -> None:
    fit(tmp_path, steps=1)
    kept = tmp_path / "best" / "checkpoint.ckpt"
    written = kept.stat().st_mtime_ns
    best = fit(tmp_path)
    assert kept.stat().st_mtime_ns == written
    assert best.best["team"]["accuracy"]["step"] == 1
    assert steps(tmp_path / "best" / "roles" / "searcher" / "checkpoint.ckpt") == 3


def test_nothing_is_kept_without_a_score(tmp_path: Path) -> None:
    fit(tmp_path, score=None)
    assert not (tmp_path / "best").exists()
    assert "best" not in json.loads((tmp_path / "results.json").read_text())


def test_a_name_of_a_checkpoint_is_resolved(tmp_path: Path) -> None:
    fit(tmp_path)
    assert named_checkpoint(tmp_path, None) is None
    assert named_checkpoint(tmp_path, "some/file.ckpt") == Path("some/file.ckpt")
    assert named_checkpoint(tmp_path, "last") == tmp_path / "checkpoints" / "step=000004.ckpt"
    assert named_checkpoint(tmp_path, "best") == tmp_path / "best" / "checkpoint.ckpt"
    assert named_checkpoint(tmp_path, "best:searcher") == tmp_path / "best" / "roles" / "searcher" / "checkpoint.ckpt"
    with pytest.raises(DataError, match=r"--ckpt_path is best:main, but there is no .*HINT: give last or a path"):
        named_checkpoint(tmp_path, "best:main")


@pytest.mark.usefixtures("own_argv")
def test_commands_take_the_best_checkpoint_and_a_fit_does_not(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    team = write_team_file(tmp_path, tiny, max_steps=2, val_check_interval=1, num_sanity_val_steps=-1)
    run = tmp_path / "runs" / "toy"
    main(["fit", "--config", str(team)])
    results = json.loads((run / "results.json").read_text())
    record = results["best"]["team"]["accuracy"]
    assert record["score"] == pytest.approx(max(one["accuracy"] for one in results["history"]))
    main(["validate", "--config", str(team), "--ckpt_path", "best"])
    validated = json.loads((run / "results.json").read_text())["validate"]
    assert (validated["step"], validated["accuracy"]) == (record["step"], pytest.approx(record["score"]))
    main(["predict", "--config", str(team), "--ckpt_path", "best:main", "--question", "word 3"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(team), "--ckpt_path", "best", "--trainer.max_steps=4"])
    assert "HINT: give --ckpt_path last to resume it" in capsys.readouterr().err
