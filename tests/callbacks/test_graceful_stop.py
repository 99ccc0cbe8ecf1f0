"""A run that is asked to stop saves, says so, and goes on later as if it had not stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from mgrpo_lightning.callbacks import GracefulStop
from mgrpo_lightning.errors import RunStopped
from mgrpo_lightning.persistence.checkpoints import checkpoints
from tests.callbacks.fakes import FakeData, FakeTeam, make_trainer


class Ask(Callback):
    """Touches a file in the middle of a step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.step = step

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            self.path.parent.mkdir(exist_ok=True)
            self.path.touch()


def fit(root: Path, *callbacks: Callback, every: int = 1, ckpt: Path | None = None, store: Path | None = None) -> None:
    data = FakeData(steps=4)
    data.store = store
    trainer = make_trainer(root, *callbacks, GracefulStop(), every=every)
    trainer.fit(FakeTeam(), datamodule=data, ckpt_path=ckpt, weights_only=True)


@pytest.mark.parametrize("every", [1, 3])
def test_it_saves_behind_the_step_and_says_how_to_go_on(tmp_path: Path, every: int) -> None:
    with pytest.raises(RunStopped, match=r"stopped after step 2 of 4, because of .*stop.*HINT: .*--ckpt_path=last"):
        fit(tmp_path, Ask(tmp_path / "stop", 1), every=every)
    saved = checkpoints(tmp_path / "checkpoints")
    assert max(saved) == 2
    with pytest.raises(RunStopped, match="before it starts"):
        fit(tmp_path, ckpt=saved[2])
    (tmp_path / "stop").unlink()
    fit(tmp_path, ckpt=saved[2])
    assert max(checkpoints(tmp_path / "checkpoints")) == 4


def test_roles_in_processes_of_their_own_share_one_file(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunStopped, match="after step 3"):
        fit(run / "searcher", Ask(run / "stop", 2), store=run / "store")


def test_without_the_file_nothing_happens(tmp_path: Path) -> None:
    fit(tmp_path)
    assert sorted(checkpoints(tmp_path / "checkpoints")) == [1, 2, 3, 4]
