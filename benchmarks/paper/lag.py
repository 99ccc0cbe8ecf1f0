"""Lag benchmark (Fig. 8): train the searcher on steps ago or from a queue, with and without the ratio's correction.

    python -m benchmarks.paper.lag [--seeds 0 1 2] [--arms ...] [--steps 16] [--jobs 1] [--out runs/lag]

Every arm and seed is the quickstart with one setting of the searcher changed, in a run folder of its own; what is
finished is not run again, and what was cut off goes on. Arms: ``lag N`` trains on exactly the calls of N steps ago (0
is synchronised), ``queue`` on whichever calls have come, ``QUEUE`` at a time; ``uncorrected`` takes what an older
adapter sampled for the current one's, where the others clip the ratio around it. As a run ends it is among the
records, to be committed; the table and the picture are of all that is there: main's training reward against rollouts,
the mean of the seeds and their range, held-out exact match before and after, and how far the searcher's adapter was
from the one that had sampled what it learned from.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.pictures import FOLDER, WINDOW, line_and_range, save, smoothed
from benchmarks.records import read, recorded
from benchmarks.runs import fit, read_scalars, side_by_side
from benchmarks.tables import markdown
from mgrpo_lightning.records.journal import read_groups, training_files

NAME = "paper/lag"
TEAM = ("--config", "configs/quickstart.yaml")
SEARCHER = "--model.roles.searcher"
QUEUE = 64
UNCORRECTED = f"{SEARCHER}.objective.correction=none"
ARMS: dict[str, tuple[str, ...]] = {
    "lag 0": (),
    "lag 1": (f"{SEARCHER}.lag=1",),
    "lag 2": (f"{SEARCHER}.lag=2",),
    "lag 4": (f"{SEARCHER}.lag=4",),
    "queue": (f"{SEARCHER}.queue={QUEUE}",),
    "lag 1, uncorrected": (f"{SEARCHER}.lag=1", UNCORRECTED),
    "lag 2, uncorrected": (f"{SEARCHER}.lag=2", UNCORRECTED),
    "lag 4, uncorrected": (f"{SEARCHER}.lag=4", UNCORRECTED),
    "queue, uncorrected": (f"{SEARCHER}.queue={QUEUE}", UNCORRECTED),
}
"""Settings of the searcher."""


def record(folder: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """What a finished run did.

    Args:
        folder: The run folder.
        results: Its results.json.
    """
    rewards = []
    for _, paths in sorted(training_files(folder / "journal").items()):
        scores = [rollout.scores[0] for path in paths for group in read_groups(path) for rollout in group.rollouts]
        rewards.append(statistics.fmean(score.total for score in scores))
    held_out = {moment: results[moment]["exact_match"] for moment in ("before", "after")}
    scalars = read_scalars(folder / "tensorboard")
    stale = {name: statistics.fmean(scalars[f"searcher/{name}"]) for name in ("mismatch", "clip_fraction")}
    figures = {"rollouts_per_step": len(scores), "seconds": results["seconds"]["fit"]}
    return {"rewards": rewards, **stale, **figures, **held_out}


def table(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The table in Markdown, a line an arm.

    Args:
        records: Of each arm's seeds. Means are of the seeds, and of the steps where there are some.
    """
    columns = (
        "searcher",
        "seeds",
        "before",
        "after",
        "range",
        "reward minus lag 0's",
        "range",
        "abs log rho",
        "clipped",
    )
    rows = []
    for arm, found in records.items():
        after = [one["after"] for one in found]
        apart = list(map(statistics.fmean, differences(found, records.get("lag 0", ()))))
        cells = (
            arm,
            len(found),
            f"{statistics.fmean(one['before'] for one in found):.1%}",
            f"{statistics.fmean(after):.1%}",
            f"{min(after):.1%} to {max(after):.1%}",
            *((f"{statistics.fmean(apart):.3f}", f"{min(apart):.3f} to {max(apart):.3f}") if apart else ("-", "-")),
            f"{statistics.fmean(one['mismatch'] for one in found):.4f}",
            f"{statistics.fmean(one['clip_fraction'] for one in found):.2%}",
        )
        rows.append(cells)
    return markdown(columns, rows)


def differences(found: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Main's rewards minus those of another arm, step by step.

    At the same step arms play the same questions and seeds other ones: so differences are within a seed.

    Args:
        found: Records of an arm.
        others: Of the other arm; a seed that it lacks is left out.
    """
    rewards = {one["seed"]: one["rewards"] for one in others}
    return [
        [a - b for a, b in zip(one["rewards"], rewards[one["seed"]], strict=True)]
        for one in found
        if one["seed"] in rewards
    ]


def draw(records: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw main's training reward, with and without the correction, and its difference to that of ``lag 0``.

    Args:
        records: Of each arm's seeds.
        path: The picture to write.
    """
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    columns = figure.subplots(2, 2, sharex=True, sharey="row").T
    for (above, below), corrected in zip(columns, (True, False), strict=True):
        for arm, found in records.items():
            if arm != "lag 0" and ("uncorrected" in arm) == corrected:
                continue
            curves = [smoothed(one["rewards"]) for one in found]
            apart = list(map(smoothed, differences(found, records.get("lag 0", ()))))
            label = arm.removesuffix(", uncorrected")
            for axes, lines in ((above, curves), (below, apart)):
                x = [(i + WINDOW) * found[0]["rollouts_per_step"] for i in range(len(curves[0]))]
                line_and_range(axes, x, lines, label)
        above.set_title("ratio clipped around the older policy" if corrected else "taken for the current policy's")
        below.set_xlabel("rollouts")
        above.legend()
        for axes, title in ((above, "main's training reward"), (below, "minus that of lag 0")):
            axes.set_ylabel(title)
            axes.grid(alpha=0.3)
    save(figure, path, dpi=150)


def made(arm: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """The record of an arm and seed.

    Args:
        arm: A key of ``ARMS``.
        seed: Run seed.
        steps: Of the run.
        folder: The run folder.
    """
    results = fit([*TEAM, f"--run.seed={seed}", f"--trainer.max_steps={steps}", *ARMS[arm]], folder)
    return {"arm": arm, "seed": seed, **record(folder, results)}


def report() -> str:
    """The table of all records, whose picture is drawn too."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in read(NAME).values():
        found[one["arm"]].append(one)
    records = {arm: found[arm] for arm in ARMS if arm in found}
    draw(records, FOLDER / "lag.png")
    return table(records)


def main() -> None:
    """Run what is missing, record each run as it ends, and show all records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=1, help="number of parallel runs, which share the cores")
    parser.add_argument("--out", type=Path, default=Path("runs/lag"))
    arguments = parser.parse_args()
    work = []
    for seed in arguments.seeds:
        for arm in arguments.arms:
            name = f"{arm.replace(', ', '-').replace(' ', '_')}-{seed}"
            make = partial(made, arm, seed, arguments.steps, arguments.out / name)
            work.append(partial(recorded, f"{NAME}/{name}", make))
    side_by_side(work, arguments.jobs)
    print(report())


if __name__ == "__main__":
    main()
