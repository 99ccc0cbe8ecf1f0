"""A fit computes where it is told to: on a device that refuses what is on another, as a GPU does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.support.started import Started
from tests.support.teams import tiny_team

STRICT = """
import torch
from tests.support.pretend_gpu import NAME, PretendGpu, register

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
    model = ("quantization=none", "compute_dtype=bfloat16", "gradient_checkpointing=true")
    data = ("schedule=eager", "cache_gib=0.01", "validation.questions=2", "task=tests.support.toy.ToyTask")
    options = [*(f"--model.{one}" for one in model), *(f"--data.{one}" for one in data)]
    options += [f"--model.roles.{role}.objective.kl=0.1" for role in ("main", "searcher")]
    options += ["--trainer.max_steps=2", "--trainer.num_sanity_val_steps=-1", "--data.queries_per_step=1"]
    words = tiny_team(tmp_path).command("fit", tmp_path, "run", *options)
    Started(words, module="tests.support.pretend_gpu").finish()
    run = tmp_path / "run"
    results = json.loads((run / "results.json").read_text())
    assert results["steps"] == 2
    assert results["before"]["questions"] == results["after"]["questions"] == 2
    learns = set()
    for step in range(2):
        table = pq.read_table(run / "journal" / f"step-{step:06d}.parquet", columns=["role", "advantage"])
        learns |= {row["role"] for row in table.to_pylist() if row["advantage"]}
    assert learns == {"main", "searcher"}
