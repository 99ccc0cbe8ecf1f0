"""A checkpoint behind a step that is followed by a validation holds it, and a resumed run misses none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from mgrpo_lightning.callbacks import GracefulStop, TeamCheckpoint
from mgrpo_lightning.errors import RunStopped
from mgrpo_lightning.persistence.checkpoints import checkpoints, last_checkpoint
from tests.callbacks.fakes import FakeData, FakeTeam, make_trainer


class Killed(Exception):
    """Stands for the signal."""


class KillInValidation(Callback):
    """Ends the process, as it were, in the middle of a validation."""

    def __init__(self, step: int) -> None:
        self.step = step

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking:
            raise Killed


class AskInValidation(KillInValidation):
    """Asks for a stop there instead."""

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            (Path(trainer.default_root_dir) / "stop").touch()


def fit(root: Path, *callbacks: Callback, steps: int = 4, every: int = 1, **settings: Any) -> list[int]:
    """Train, from the last checkpoint if there is one; the steps behind which the team was validated."""
    settings = {"max_steps": steps, "max_epochs": -1, "val_check_interval": 2, "num_sanity_val_steps": -1} | settings
    trainer = make_trainer(root, *callbacks, GracefulStop(), saver=TeamCheckpoint, every=every, **settings)
    start = last_checkpoint(root / "checkpoints") if checkpoints(root / "checkpoints") else None
    team = FakeTeam()
    trainer.fit(team, datamodule=FakeData(steps=steps), ckpt_path=start, weights_only=True)
    assert team.weight.item() == pytest.approx(-0.1 * steps), "a step was lost or done twice"
    return [record["step"] for record in team.validation_results]


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_that_is_killed_in_a_validation_does_it_when_it_is_resumed(tmp_path: Path, step: int) -> None:
    with pytest.raises(Killed):
        fit(tmp_path, KillInValidation(step))
    assert max(checkpoints(tmp_path / "checkpoints")) == step - 1
    assert fit(tmp_path) == [0, 2, 4]


def test_a_validation_that_is_over_is_not_done_again(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match="stopped after step 2 of 4"):
        fit(tmp_path, AskInValidation(2))
    (tmp_path / "stop").unlink()
    saved = torch.load(last_checkpoint(tmp_path / "checkpoints"), weights_only=True)
    assert [record["step"] for record in saved["validation_results"]] == [0, 2]
    assert fit(tmp_path) == [0, 2, 4]


def test_a_stop_does_not_wait_for_a_validation(tmp_path: Path) -> None:
    class Ask(Callback):
        @override
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
            if trainer.global_step == 3:
                (tmp_path / "stop").touch()

    with pytest.raises(RunStopped, match="stopped before the validation after step 4 of 4"):
        fit(tmp_path, Ask())
    (tmp_path / "stop").unlink()
    assert fit(tmp_path) == [0, 2, 4]


def test_other_steps_are_saved_at_once_and_only_those_that_are_asked_for(tmp_path: Path) -> None:
    assert fit(tmp_path, every=2) == [0, 2, 4]
    assert sorted(checkpoints(tmp_path / "checkpoints")) == [2, 4]


@pytest.mark.parametrize("interval", [2, 1.0])
def test_a_finished_run_can_be_made_longer(tmp_path: Path, interval: float) -> None:
    fit(tmp_path, val_check_interval=interval)
    longer = fit(tmp_path, steps=8, val_check_interval=interval)
    assert longer == ([0, 2, 4, 6, 8] if interval == 2 else [0, 4, 8])


def test_without_validations_every_step_is_saved_at_once(tmp_path: Path) -> None:
    assert fit(tmp_path, limit_val_batches=0) == []
    assert sorted(checkpoints(tmp_path / "checkpoints")) == [1, 2, 3, 4]
