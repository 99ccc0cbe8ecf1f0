"""A figure is logged in the steps that have it, and in no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typing_extensions import override

from mgrpo_lightning.callbacks import Results, TeamProgress
from mgrpo_lightning.modules.metric_logging import log_step_metrics
from mgrpo_lightning.records.batch import TeamBatch
from tests.callbacks.fakes import FakeData, FakeTeam


class SometimesCalled(FakeTeam):
    """Its searcher is called in the steps 0 and 3 alone."""

    @override
    def training_step(self, batch: TeamBatch, batch_idx: int) -> None:
        self.optimizers().step()  # type: ignore[union-attr]
        self.metrics = {"main/reward": 0.5}
        if batch.step in (0, 3):
            self.metrics["searcher/reward"] = 0.25 * (batch.step + 1)
        log_step_metrics(self, self.metrics, step=batch.step)


def fit(root: Path, *, every: int = 1) -> tuple[Trainer, Results]:
    trainer = Trainer(
        max_steps=4,
        default_root_dir=root,
        accelerator="cpu",
        log_every_n_steps=every,
        logger=[TensorBoardLogger(root, name="", version="tb"), CSVLogger(root, name="", version="csv")],
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        callbacks=[TeamProgress(), results := Results()],
    )
    trainer.fit(SometimesCalled(), datamodule=FakeData(steps=4))
    return trainer, results


def points(root: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in EventAccumulator(str(root / "tb")).Reload().Scalars(name)]


def test_a_role_that_is_not_called_has_no_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, results = fit(tmp_path)
    assert points(tmp_path, "searcher/reward") == [(0, 0.25), (3, 1.0)]
    assert points(tmp_path, "main/reward") == [(step, 0.5) for step in range(4)]
    assert results.state_dict()["rewards"]["searcher"] == [[1, 0.25], [4, 1.0]]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert ["searcher" in line for line in lines] == [True, False, False, True]
    assert trainer.callback_metrics["searcher/reward"] == 1.0, "what can be monitored"
    assert (tmp_path / "csv" / "metrics.csv").read_text().count("\n") == 5


def test_a_logger_is_asked_as_often_as_the_trainer_says(tmp_path: Path) -> None:
    fit(tmp_path, every=2)
    assert points(tmp_path, "main/reward") == [(1, 0.5), (3, 0.5)]
