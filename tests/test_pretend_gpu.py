"""A fit computes where it is told to: on a device that refuses what is on another, as a GPU does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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


def run(root: Path, *words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_it_is_as_strict_as_a_gpu(root: Path) -> None:
    run(root, "-c", STRICT)


def test_a_fit_computes_on_it_from_new_adapters_to_the_last_validation(tmp_path: Path, root: Path) -> None:
    fresh = [f"--model.init_args.roles.{role}.adapter.path=null" for role in ("main", "searcher")]
    run(
        root,
        *(
            "-m",
            "tests.pretend_gpu",
            "fit",
            "--config",
            "configs/quickstart.yaml",
            "--config",
            "configs/debug/fast.yaml",
        ),
        *(
            f"--run.root={tmp_path}",
            "--run.name=run",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
        ),
        *("--model.quantization=none", "--model.compute_dtype=bfloat16", "--model.gradient_checkpointing=true"),
        *("--data.schedule=eager", "--data.cache_gib=0.01", "--data.validation.questions=2", *fresh),
        "--model.init_args.roles.searcher.objective.kl=0.1",
    )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["steps"] == 2
    assert results["after"]["questions"] == 2
