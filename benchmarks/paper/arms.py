"""Arms benchmark: train co-training, frozen roles, single agent, other rewards and more on the pocket team, over seeds.

    python -m benchmarks.paper.arms [--seeds 0 1 2] [--arms ...] [--jobs 1] [--out runs/arms]

Each seed has a curriculum: a first stage on simple questions, a probe of how often the team is right on each training
question, a second stage on those on which it seldom is. All arms of one team start the second stage from the same
adapters. An arm that is another kind of team (``unified``, ``single_agent``, ``horizontal``) has a warm start and a
first stage of its own, from the same imperfect demonstrator. Every arm is evaluated on the same 500 questions of the
test split, on which no setting was chosen, greedily: before the second stage, every 6 steps, and at its end.

Each run has a folder of its own; what is finished is not run again, and what was cut off goes on. As a run ends it is
among the records (``records.py``), to be committed. ``python -m benchmarks.report paper/arms`` makes the tables and the
picture of all that is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.paper.arms_record import record
from benchmarks.records import recorded
from benchmarks.runs import fit, side_by_side, validate

NAME = "paper/arms"
EVERY = 6
"""Steps between validations, and between the checkpoints that are kept."""
EVALUATION = (
    *("--data.validation.split=test", "--data.validation.questions=500", "--data.validation.per_batch=125"),
    f"--trainer.val_check_interval={EVERY}",
    *("--checkpoint.save_top_k=-1", f"--checkpoint.every_n_train_steps={EVERY}"),
)


def configs(*names: str) -> tuple[str, ...]:
    """Options that compose configs.

    Args:
        names: Below ``configs``, without their ending.
    """
    return tuple(word for name in names for word in ("--config", f"configs/{name}.yaml"))


@dataclass(frozen=True)
class Start:
    """A kind of team, and where its adapters come from."""

    team: tuple[str, ...]
    """Its config files."""
    adapters: Mapping[str, str]
    """Which exported adapter each role starts from, by role."""
    warm_start: tuple[str, ...] = ()
    """Config files of its own warm start; without any it starts from what the team file says."""


STARTS = {
    "team": Start(configs("quickstart"), {"main": "main", "searcher": "searcher"}),
    "unified": Start(
        configs("quickstart", "arms/unified"),
        {"main": "main", "searcher": "main"},
        configs("quickstart", "warm_start", "arms/unified", "pocket/imperfect"),
    ),
    "single": Start(
        configs("arms/single_agent"),
        {"main": "main"},
        configs("arms/single_agent", "arms/single_warm_start", "pocket/imperfect"),
    ),
    "horizontal": Start(
        configs("arms/horizontal"),
        {"first": "first", "second": "second"},
        configs("arms/horizontal", "arms/horizontal_warm_start", "pocket/imperfect"),
    ),
}


@dataclass(frozen=True)
class Arm:
    """One line of the tables."""

    start: str
    """A key of ``STARTS``."""
    changes: tuple[str, ...] = ()
    """Config files on top of its team."""


ARMS = {
    "co_training": Arm("team"),
    "main_only": Arm("team", configs("arms/frozen_searcher")),
    "sub_only": Arm("team", configs("arms/frozen_main")),
    "single_agent": Arm("single"),
    "free_running": Arm("team", configs("arms/free_running")),
    "duplicate_drop": Arm("team", configs("arms/duplicate_drop")),
    "unified": Arm("unified"),
    "reward_outcome": Arm("team", configs("arms/reward_outcome")),
    "reward_expert": Arm("team", configs("arms/reward_expert")),
    "no_expert": Arm("team", configs("arms/no_expert")),
    "horizontal": Arm("horizontal"),
}
"""What is untrained is each arm's own beginning, before the second stage."""


def run(arm: str, seed: int, out: Path) -> Path:
    """The finished run of one arm and seed, with all that it needs before.

    Args:
        arm: A key of ``ARMS``.
        seed: Run seed, of its first stage too.
        out: Folder of all runs.
    """
    start = STARTS[ARMS[arm].start]
    first, probed = stage_1(ARMS[arm].start, seed, out)
    folder = out / f"{arm}-{seed}"
    stage_2 = [*configs("arms/stage_2"), f"--data.selection.journal={probed}", *EVALUATION]
    fit([*start.team, *ARMS[arm].changes, *stage_2, *starting_from(start, first), f"--run.seed={seed}"], folder)
    return folder


def stage_1(name: str, seed: int, out: Path) -> tuple[Path, Path]:
    """The first stage of a kind of team: its adapters, and the journal of the probe.

    Args:
        name: A key of ``STARTS``.
        seed: Run seed.
        out: Folder of all runs.
    """
    start, folder = STARTS[name], out / f"stage_1-{name}-{seed}"
    warm: list[str] = []
    if start.warm_start:
        fit(start.warm_start, out / f"warm_start-{name}")
        warm = starting_from(start, out / f"warm_start-{name}" / "adapters")
    fit([*start.team, *configs("arms/stage_1"), *warm, f"--run.seed={seed}"], folder)
    adapters = folder / "adapters"
    probe = out / f"probe-{name}-{seed}"
    validate([*start.team, *configs("arms/probe"), *starting_from(start, adapters), f"--run.seed={seed}"], probe)
    return adapters, probe / "journal" / "validate"


def starting_from(start: Start, adapters: Path) -> list[str]:
    """Options that let a team begin with exported adapters.

    Args:
        start: The kind of team.
        adapters: Folder with one for each role that has its own.
    """
    return [f"--model.roles.{role}.adapter.path={adapters / owner}" for role, owner in start.adapters.items()]


def main() -> None:
    """Run what is missing, and record each run as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--jobs", type=int, default=1, help="number of parallel runs, which share the cores")
    parser.add_argument("--out", type=Path, default=Path("runs/arms"))
    arguments = parser.parse_args()

    def made(arm: str, seed: int) -> dict[str, Any]:
        return {"arm": arm, "seed": seed, **record(run(arm, seed, arguments.out))}

    pairs = [(arm, seed) for seed in arguments.seeds for arm in arguments.arms]
    work = [partial(recorded, f"{NAME}/{arm}-{seed}", partial(made, arm, seed)) for arm, seed in pairs]
    side_by_side(work, arguments.jobs)


if __name__ == "__main__":
    main()
