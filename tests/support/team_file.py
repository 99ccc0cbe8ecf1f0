"""A team file for whole runs through the command line: a tiny random model, the toy task, a run folder of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def write_team_file(folder: Path, model: Path, *, objective: str = "supervised", **trainer: Any) -> Path:
    """Write ``team.yaml`` into the folder; the run goes to ``folder/runs/toy``.

    Args:
        folder: Of the test.
        model: A tiny model's folder.
        objective: Kind of both roles' objective; ``supervised`` plays demonstrations.
        **trainer: More trainer arguments.
    """
    role: dict[str, Any] = {
        "base_model": str(model),
        "adapter": {"rank": 4, "alpha": 8},
        "limits": {"turns": 4, "new_tokens": 24, "calls": 4, "context": 256, "observation": 32},
        "objective": {"kind": objective},
        "optimizer": {"lr": 1e-2},
    }
    main = {**role, "calls": ["searcher"], "system_prompt": "main", "reward": {"format": 0.1, "correct": 0.9}}
    reward = {"format": 0.1, "correct_main": 0.4, "expert": 0.5}
    searcher = {**role, "tools": ["search"], "system_prompt": "searcher", "reward": reward}
    team = {
        "run": {"name": "toy", "root": str(folder / "runs")},
        "model": {"roles": {"main": main, "searcher": searcher}},
        "data": {
            "task": {"class_path": "tests.support.toy.ToyTask"},
            "queries_per_step": 2,
            "rollouts_per_query": 2,
            "source": "demonstrations" if objective == "supervised" else "policy",
            "schedule": "rounds",
            "validation": {"questions": 4},
        },
        "trainer": {"max_steps": 4, "enable_progress_bar": False, "accelerator": "cpu", **trainer},
    }
    path = folder / "team.yaml"
    path.write_text(yaml.safe_dump(team))
    return path
