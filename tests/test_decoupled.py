"""Roles in processes of their own: bitwise what they are in one.

Left out unless asked for are a run without a kill, the kill of main, kills in a validation, a frozen role, twenty whole
steps, and all of it with the quickstart's team:
pytest -m slow tests/test_decoupled.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from mgrpo_lightning.persistence.resume_log import held_out_log_path
from mgrpo_lightning.records.journal import read_groups
from mgrpo_lightning.records.trajectory import Key, Trajectory
from tests.support.started import Started
from tests.support.teams import QUICKSTART, Team, release

STEPS = 3
ROLES = ("main", "searcher")


def adapter(run: Path, role: str, steps: int) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints" / f"step={steps:06d}.ckpt", weights_only=True)
    assert state["roles"][role]["updates"] > 0, "nothing was learned"
    found = state["roles"][role]["adapter"]
    assert isinstance(found, dict)
    return found


def trajectories(run: Path, role: str) -> dict[Key, tuple[Trajectory, object]]:
    return {
        t.key: (t, rollout.scores[t.key.invocation])
        for path in sorted((run / "journal").glob("*.parquet"))
        for group in read_groups(path)
        for rollout in group.rollouts
        for t in rollout.trajectories(role)
    }


def advantages(run: Path, role: str) -> list[dict[str, object]]:
    columns = ["step", "query", "rollout", "invocation", "advantage", "coefficient"]
    rows = [
        row
        for path in sorted((run / "journal").glob("*.parquet"))
        for row in pq.read_table(path, columns=["role", *columns]).to_pylist()
    ]
    return sorted(
        ({c: row[c] for c in columns} for row in rows if row["role"] == role), key=lambda row: [*row.values()][:4]
    )


def finish(processes: Iterable[Started]) -> None:
    for process in processes:
        process.finish()


@pytest.fixture(scope="module")
def coupled(tmp_path_factory: pytest.TempPathFactory, root: Path, team: Team) -> Path:
    """It starts Python itself, so its hash seed is another one."""
    folder = tmp_path_factory.mktemp("coupled")
    words = [sys.executable, "-m", "mgrpo_lightning", *team.command("fit", folder, "run")]
    subprocess.run(words, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    return folder / "run"


def assert_same(decoupled: Path, coupled: Path, steps: int = STEPS) -> None:
    for role in ROLES:
        one, other = adapter(coupled, role, steps), adapter(decoupled / role, role, steps)
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
        played, expected = trajectories(decoupled / role, role), trajectories(coupled, role)
        assert played.keys() == expected.keys()
        for key, (trajectory, score) in expected.items():
            assert played[key][0].spans == trajectory.spans
            assert played[key][0].messages == trajectory.messages
            assert played[key][1] == score
        of_role = advantages(coupled, role)
        assert advantages(decoupled / role, role) == of_role
        assert any(row["advantage"] for row in of_role)


@pytest.mark.slow
def test_decoupled_is_bitwise_coupled(tmp_path: Path, team: Team, coupled: Path) -> None:
    finish([Started(team.command("fit", tmp_path, "run", "--role", role)) for role in ROLES])
    assert_same(tmp_path / "run", coupled)


@pytest.mark.parametrize("victim", ["searcher", pytest.param("main", marks=pytest.mark.slow)])
def test_a_killed_role_is_resumed_and_nothing_differs(tmp_path: Path, team: Team, coupled: Path, victim: str) -> None:
    checkpoint = tmp_path / "run" / victim / "checkpoints" / "step=000001.ckpt"
    words = team.command("fit", tmp_path, "run", *team.hanging(tmp_path, since=checkpoint))
    processes = {role: Started([*words, "--role", role]) for role in ROLES}
    while not checkpoint.exists():
        assert all(process.poll() is None for process in processes.values())
        time.sleep(0.02)
    time.sleep(1)
    processes[victim].kill()
    release(tmp_path)
    assert not (tmp_path / "run" / victim / "checkpoints" / f"step={STEPS:06d}.ckpt").exists()
    processes[victim] = Started([*words, "--role", victim, "--ckpt_path=last"])
    finish(processes.values())
    assert_same(tmp_path / "run", coupled)
    assert (tmp_path / "run" / "store" / "writers" / f"{victim}-0" / "000002").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ROLES)
def test_a_role_killed_in_a_validation_is_resumed_with_it(tmp_path: Path, team: Team, victim: str) -> None:
    path = held_out_log_path(tmp_path / "run" / victim / "resume_logs", 2)
    options = ["--data.schedule=eager", "--data.validation.questions=6", "--data.validation.per_batch=3"]
    options += ["--trainer.val_check_interval=1", "--data.validation.temperature=1.0"]
    words = team.command("fit", tmp_path, "run", *options, *team.hanging(tmp_path, since=path))
    processes = {role: Started([*words, "--role", role]) for role in ROLES}
    while not path.exists() or path.read_bytes().count(b"\n") < 4:
        assert all(process.poll() is None for process in processes.values())
        time.sleep(0.02)
    processes[victim].kill()
    release(tmp_path)
    processes[victim] = Started([*words, "--role", victim, "--ckpt_path=last"])
    finish(processes.values())
    for role in ROLES:
        results = json.loads((tmp_path / "run" / role / "results.json").read_text())
        assert [record["step"] for record in results["history"]] == [1, 2, 3]


@pytest.mark.slow
def test_twenty_steps_of_the_quickstart_are_the_same(tmp_path: Path) -> None:
    """As large as its configuration says, without its validation: about five minutes."""
    steps = 20
    whole = [f"--trainer.max_steps={steps}", "--data.queries_per_step=8", "--data.rollouts_per_query=8"]
    whole.append("--trainer.limit_val_batches=0")
    Started(QUICKSTART.command("fit", tmp_path, "coupled", *whole)).finish()
    finish([Started(QUICKSTART.command("fit", tmp_path, "run", *whole, "--role", role)) for role in ROLES])
    assert_same(tmp_path / "run", tmp_path / "coupled", steps)


@pytest.mark.slow
def test_a_role_that_only_serves_is_what_it_is_in_one_process(tmp_path: Path, team: Team) -> None:
    frozen = "--model.roles.searcher.trainable=false"
    Started(team.command("fit", tmp_path, "coupled", frozen)).finish()
    finish([Started(team.command("fit", tmp_path, "run", frozen, "--role", role)) for role in ROLES])
    one, other = adapter(tmp_path / "coupled", "main", STEPS), adapter(tmp_path / "run" / "main", "main", STEPS)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    played, expected = (
        trajectories(tmp_path / "run" / "searcher", "searcher"),
        trajectories(tmp_path / "coupled", "searcher"),
    )
    assert {key: t.spans for key, (t, _) in played.items()} == {key: t.spans for key, (t, _) in expected.items()}
