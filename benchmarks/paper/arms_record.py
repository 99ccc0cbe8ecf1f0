"""Make the record of an arm's finished run: metrics of each step; right answers, tokens and turns of validations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.runs import read_scalars
from mgrpo_lightning.records.journal import read_groups, training_files
from mgrpo_lightning.records.trajectory import Group

OF_ROLES = ("reward", "grad_norm", "zero_advantage_groups")
"""Figures of a step that each role has; the last two only if it is trained."""


def record(folder: Path) -> dict[str, Any]:
    """The record of a run.

    Args:
        folder: Its run folder, with journal, results.json and tensorboard.

    Returns:
        ``rollouts_per_step``; ``steps``: lists with a number a step, by name: ``correct`` (share of right rollouts in
        training), ``tokens`` (of a rollout), ``seconds``, and by role those of ``OF_ROLES``; ``questions``: a hash of
        the held-out questions; ``validations``: a record each with ``step``, ``right`` (one digit a question), and
        ``tokens``, ``turns`` and ``seconds`` of all rollouts together.
    """
    scalars = read_scalars(folder / "tensorboard")
    first = min(training_files(folder / "journal").items())[1]
    roles = sorted(name.removesuffix("/reward") for name in scalars if name.endswith("/reward"))
    heads = [role for role in roles if f"{role}/reward_correct" in scalars]
    seconds = {entry["step"]: _seconds(entry) for entry in json.loads((folder / "results.json").read_text())["history"]}
    played = {
        int(path.stem.split("-")[1]): read_groups(path) for path in (folder / "journal").glob("validation-*.parquet")
    }
    asked = {tuple(group.question.id for group in groups) for groups in played.values()}
    assert len(asked) == 1, f"validations of {folder} ask different questions"
    return {
        "rollouts_per_step": sum(len(group.rollouts) for path in first for group in read_groups(path)),
        "steps": {
            "correct": scalars[f"{heads[0]}/reward_correct"],
            "tokens": scalars["tokens_per_rollout"],
            "seconds": [sum(both) for both in zip(scalars["seconds/play"], scalars["seconds/update"], strict=True)],
            **{name: {r: scalars[f"{r}/{name}"] for r in roles if f"{r}/{name}" in scalars} for name in OF_ROLES},
        },
        "questions": sha256("\n".join(next(iter(asked))).encode()).hexdigest()[:16],
        "validations": [
            {"step": step, **validation(played[step]), "seconds": seconds[step]} for step in sorted(played)
        ],
    }


def validation(groups: Sequence[Group]) -> dict[str, Any]:
    """What a greedy validation answered, and what it took.

    Args:
        groups: One rollout a question.
    """
    trajectories = [t for group in groups for rollout in group.rollouts for t in rollout.trajectories()]
    return {
        "right": "".join(str(int(group.rollouts[0].scores[0].correct)) for group in groups),
        "tokens": sum(t.num_tokens for t in trajectories),
        "turns": sum(t.num_turns for t in trajectories),
    }


def _seconds(entry: Mapping[str, Any]) -> float:
    return float(entry["seconds_per_question"] * entry["questions"])
