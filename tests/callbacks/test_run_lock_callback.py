"""A fit that has lost its run folder to another one stops before it writes again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from mgrpo_lightning.callbacks import RunLockCallback
from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.persistence.checkpoints import checkpoints
from mgrpo_lightning.persistence.run_lock import FOLDER, RunLock
from tests.callbacks.fakes import FakeData, FakeTeam, make_trainer


class TakeOver(Callback):
    """What another machine does when it has seen no beat for a minute."""

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 2:
            (Path(trainer.default_root_dir) / FOLDER / "fit" / "000002").mkdir()


def fit(root: Path, *callbacks: Callback) -> None:
    make_trainer(root, RunLockCallback(), *callbacks).fit(FakeTeam(), datamodule=FakeData(steps=4))


def test_a_fit_that_was_taken_over_stops_before_its_next_write(tmp_path: Path) -> None:
    with pytest.raises(MgrpoError, match="was taken over by another process"):
        fit(tmp_path, TakeOver())
    assert max(checkpoints(tmp_path / "checkpoints")) == 2


def test_a_fit_without_the_command_line_holds_the_lock_and_gives_it_back_however_it_ends(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, "fit")
    lock.take()
    with pytest.raises(ConfigurationError, match="another fit writes into"):
        fit(tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    lock.release()

    class Mistake(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            with pytest.raises(ConfigurationError, match="another fit writes into"):
                RunLock(tmp_path, "fit").take()
            raise ValueError("mistake")

    with pytest.raises(ValueError, match="mistake"):
        fit(tmp_path, Mistake())
    fit(tmp_path)
    lock.take()
    lock.release()
