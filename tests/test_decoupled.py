"""Roles in processes of their own: bitwise what they are in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from mgrpo_lightning.journal import read_groups
from mgrpo_lightning.trajectory import Key, Trajectory

STEPS = 3
ROLES = ("main", "searcher")


def command(root: Path, name: str, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "mgrpo_lightning", "fit", "--config", "configs/quickstart.yaml"),
        *("--config", "configs/debug/fast.yaml", f"--run.root={root}", f"--run.name={name}"),
        *(f"--trainer.max_steps={STEPS}", "--data.queries_per_step=2", "--data.rollouts_per_query=4"),
        *("--trainer.enable_progress_bar=false", *options),
    ]


def adapter(run: Path, role: str) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints" / f"step={STEPS:06d}.ckpt", weights_only=True)
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


def test_decoupled_is_bitwise_coupled(tmp_path: Path, root: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path, "coupled"), cwd=root, env=environment, check=True, capture_output=True)
    processes = [
        subprocess.Popen(
            command(tmp_path, "decoupled", "--role", role),
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for role in ROLES
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    for role in ROLES:
        own = tmp_path / "decoupled" / role
        one, other = adapter(tmp_path / "coupled", role), adapter(own, role)
        assert one.keys() == other.keys()
        assert any(tensor.any() for name, tensor in one.items() if "lora_B" in name), "nothing was learned"
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
        played, expected = trajectories(own, role), trajectories(tmp_path / "coupled", role)
        assert played.keys() == expected.keys()
        for key, (trajectory, score) in expected.items():
            assert played[key][0].spans == trajectory.spans
            assert played[key][0].messages == trajectory.messages
            assert played[key][1] == score
