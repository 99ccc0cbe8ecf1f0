"""The text of an encrypted question stands in the journal of its run, and in nothing that is meant to be looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from mgrpo_lightning.callbacks import RolloutLog
from mgrpo_lightning.records.trajectory import Group
from tests.callbacks import fakes
from tests.callbacks.fakes import FakeData, FakeTeam


def test_no_log_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_groups = fakes.make_groups

    def half_encrypted(*args: object, **options: object) -> list[Group]:
        first, second = make_groups(*args, **options)  # type: ignore[arg-type]
        encrypted = Group(replace(first.question, metadata={"encrypted": "yes"}), first.rollouts)
        encrypted.rollouts[0].main.task = "unheard-of"
        return [encrypted, second]

    monkeypatch.setattr(fakes, "make_groups", half_encrypted)
    logger = TensorBoardLogger(tmp_path, name="", version="tensorboard")
    trainer = Trainer(
        max_steps=1,
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=logger,
        callbacks=[RolloutLog()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(FakeTeam(), datamodule=FakeData(steps=1))
    shown = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"rollout_0" in shown
    assert b"unheard-of" not in shown
