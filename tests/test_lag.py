"""A role that trains on what was played some steps ago: exactly that, wherever it runs and however often it stops."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from mgrpo_lightning.records.journal import read_groups
from tests.support.started import Started
from tests.support.teams import Team
from tests.test_decoupled import ROLES, STEPS, assert_same, finish

LAG = ("--model.roles.searcher.lag=1", "--run.seed=2")


@pytest.fixture(scope="module")
def lagging(tmp_path_factory: pytest.TempPathFactory, team: Team) -> Path:
    folder = tmp_path_factory.mktemp("lagging")
    Started(team.command("fit", folder, "run", *LAG, "--checkpoint.save_top_k=-1")).finish()
    return folder / "run"


def advantages(run: Path, step: int, role: str) -> list[float]:
    table = pq.read_table(
        run / "journal" / f"step-{step:06d}.parquet", columns=["role", "advantage"], partitioning=None
    )
    return [row["advantage"] for row in table.to_pylist() if row["role"] == role and row["advantage"] is not None]


def roles(run: Path, step: int) -> dict[str, dict[str, object]]:
    state = torch.load(run / "checkpoints" / f"step={step:06d}.ckpt", weights_only=True)
    assert isinstance(state["roles"], dict)
    return state["roles"]


def test_a_role_with_a_lag_is_an_update_behind_and_the_others_are_not(lagging: Path) -> None:
    played = [list(read_groups(path)) for path in sorted((lagging / "journal").glob("step-*.parquet"))]
    for role, lag in (("main", 0), ("searcher", 1)):
        moves = [any(advantages(lagging, step, role)) for step in range(STEPS)]
        assert any(moves[: STEPS - lag]), "nothing was learned"
        updates = [sum(moves[: max(0, step - lag)]) for step in range(STEPS + 1)]
        assert [roles(lagging, step)[role]["updates"] for step in (1, 2, 3)] == updates[1:]
        for step, groups in enumerate(played):
            spans = [span for g in groups for r in g.rollouts for t in r.trajectories(role) for span in t.spans]
            assert {span.version for span in spans if span.kind == "action"} == {updates[step]}


def test_its_updates_are_those_of_the_journal(lagging: Path) -> None:
    """What is due at the first of them was played before the checkpoint that it starts from."""
    Started(["replay", str(lagging), "--step", "2"]).finish()


def test_a_run_that_goes_on_trains_on_what_it_had_played_before(tmp_path: Path, team: Team, lagging: Path) -> None:
    shutil.copytree(lagging, tmp_path / "run")
    for path in (*tmp_path.rglob(f"step={STEPS:06d}.ckpt"), *tmp_path.rglob("step-000002.parquet")):
        path.unlink()
    Started(team.command("fit", tmp_path, "run", *LAG, "--ckpt_path=last")).finish()
    for role in ROLES:
        ours, theirs = roles(tmp_path / "run", STEPS)[role]["adapter"], roles(lagging, STEPS)[role]["adapter"]
        assert isinstance(ours, dict)
        assert isinstance(theirs, dict)
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_in_a_process_of_its_own_it_is_bitwise_the_same(tmp_path: Path, team: Team, lagging: Path) -> None:
    finish([Started(team.command("fit", tmp_path, "run", *LAG, "--role", role)) for role in ROLES])
    assert_same(tmp_path / "run", lagging)
