"""A run that takes several optimizer steps on each batch: killed inside a batch, resumed, replayed, on two ranks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from mgrpo_lightning.commands.replay import differences, replay
from mgrpo_lightning.persistence.checkpoints import checkpoints
from tests.support.started import Started
from tests.support.teams import Team

STEPS = 3
LR = 0.05
STRAIGHT = ("--trainer.limit_val_batches=0", "--checkpoint.save_top_k=-1", "--run.seed=2")
SEVERAL = (
    *(f"--model.roles.main.optimizer.{setting}" for setting in ("updates_per_batch=2", "minibatches=2")),
    *("--model.roles.searcher.optimizer.updates_per_batch=4", "--model.roles.searcher.objective.correction=truncated"),
    *(f"--model.roles.{role}.optimizer.lr={LR}" for role in ("main", "searcher")),
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, team: Team) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    Started(team.command("fit", folder, "run", *STRAIGHT, *SEVERAL)).finish()
    return folder / "run"


def adapters(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    state = torch.load(run / "checkpoints" / f"step={STEPS:06d}.ckpt", weights_only=True)
    assert state["global_step"] == STEPS
    assert all(0 < values["updates"] <= STEPS for values in state["roles"].values()), "nothing was learned"
    steps = {float(moments["step"]) for values in state["roles"].values() for moments in values["optimizer"].values()}
    assert max(steps) > STEPS, "no batch had several optimizer steps"
    return {role: values["adapter"] for role, values in state["roles"].items()}


@pytest.mark.parametrize("at", [6, 7])
def test_a_run_killed_in_the_middle_of_a_batch_resumes_bitwise(
    tmp_path: Path, team: Team, straight: Path, at: int
) -> None:
    """Each batch takes four steps of the optimizer, so the sixth and the seventh are within the second batch."""
    words = team.command("fit", tmp_path, "run", *STRAIGHT, *SEVERAL)
    environment = {**os.environ, "KILL_AT": str(at)}
    killed = Started(words, module="tests.support.killed_in_a_batch", env=environment)
    assert killed.wait() == -signal.SIGKILL, killed.said()
    assert sorted(checkpoints(tmp_path / "run" / "checkpoints")) == [1], "a checkpoint stands at the end of a batch"
    Started([*words, "--ckpt_path=last"]).finish()
    assert differences(adapters(tmp_path / "run"), adapters(straight)) == {"main": 0.0, "searcher": 0.0}


def test_a_replay_takes_the_same_steps(straight: Path) -> None:
    said = Started(["replay", str(straight)]).finish()
    assert all(f"{role}: bitwise equal to" in said for role in ("main", "searcher"))


@pytest.mark.slow
def test_two_ranks_make_the_minibatches_of_one(tmp_path: Path, team: Team) -> None:
    two = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--data.queries_per_step=3")
    Started(team.command("fit", tmp_path, "run", *STRAIGHT, *SEVERAL, *two)).finish()
    replayed = replay(tmp_path / "run", start=None, until=STEPS, settings=["--trainer.devices=1"])
    found = differences(replayed.adapters, adapters(tmp_path / "run"))
    # Sums of other parts differ in float32, and AdamW divides them by their own size: up to a hundredth of a step here.
    # Other minibatches would differ by whole steps.
    assert max(found.values()) < LR / 20
