"""A fit computes where it is told to: on a device that refuses what is on another, as a GPU does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from tests.started import Started
from tests.team_file import write_team_file
from tests.tiny import make_tiny_model

STRICT = """
import torch
from tests.pretend_gpu import NAME, PretendGpu, register

register()
with PretendGpu():
    here = torch.ones(3, device=NAME)
    assert (here * 2 + torch.tensor(1.0)).sum().item() == 9
    assert here.cpu().device.type == "cpu" and (here.cpu() + torch.ones(3)).sum() == 6
    assert here[torch.tensor([0, 1])].device.type == NAME
    mistakes = {
        "two devices": lambda: here + torch.ones(3),
        "in place": lambda: here.add_(torch.ones(3)),
        "by index": lambda: torch.ones(3)[torch.tensor([0], device=NAME)],
        "put": lambda: here.__setitem__(torch.tensor([0, 1]), torch.ones(2)),
        "generator": lambda: here.uniform_(generator=torch.Generator()),
        "product": lambda: torch.ones(2, 3) @ here,
    }
    for name, mistake in mistakes.items():
        try:
            mistake()
        except RuntimeError:
            continue
        raise SystemExit(f"{name} was let through")
"""


def test_it_is_as_strict_as_a_gpu(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", STRICT], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_fit_computes_on_it_from_new_adapters_to_the_last_validation(tmp_path: Path) -> None:
    team = write_team_file(tmp_path, make_tiny_model(tmp_path / "tiny"), objective="mgrpo", max_steps=2)
    model = ("quantization=none", "compute_dtype=bfloat16", "gradient_checkpointing=true", "dense_copy=true")
    roles = ("limits.new_tokens=4", "limits.turns=2", "objective.kl=0.1")
    data = ("task=tests.toy.EveryOtherTask", "schedule=eager", "cache_gib=0.01", "validation.questions=2")
    words = [
        *(f"--model.{option}" for option in model),
        *(f"--model.init_args.roles.{role}.{option}" for role in ("main", "searcher") for option in roles),
        *(f"--data.{option}" for option in data),
        *("--trainer.num_sanity_val_steps=-1", "--trainer.max_steps=2"),
    ]
    Started(["fit", "--config", str(team), *words], module="tests.pretend_gpu").finish()
    run = tmp_path / "runs" / "toy"
    results = json.loads((run / "results.json").read_text())
    assert results["steps"] == 2
    assert results["before"]["questions"] == results["after"]["questions"] == 2
    state = torch.load(run / "checkpoints" / "step=000002.ckpt", weights_only=True)
    assert state["roles"]["main"]["updates"] == 2
