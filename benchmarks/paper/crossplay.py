"""Crossplay benchmark: accuracy of main of one step or run with sub-agents of another; tables and heat maps.

    python -m benchmarks.paper.crossplay RUN [RUN ...] [--questions 300] [--name team]

Each run is a finished one that kept its checkpoints (``--checkpoint.save_top_k=-1``), all of one team. Within each run
main of every kept step plays with the sub-agents of every kept step; between runs the mains of their ends play with
each other's sub-agents. Held-out questions, greedy. What an agent learned by itself raises its whole row or column;
what it learned about its partner of the same moment raises the diagonal alone. The figures are among the records; a
heat map goes to docs/pictures.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.trained_team import Adapters, TrainedTeam
from benchmarks.pictures import FOLDER, save
from benchmarks.records import add, read
from benchmarks.tables import markdown
from mgrpo_lightning.records.question import Question

NAME = "paper/crossplay"
Grid = list[list[float]]
"""Accuracy; a row for each of main's moments, a column for each of the sub-agents'."""
PER_BATCH = 100


def grid(team: TrainedTeam, mains: Sequence[Adapters], subs: Sequence[Adapters], questions: Sequence[Question]) -> Grid:
    """Accuracy of every main with every set of sub-agents.

    Args:
        team: Who plays, with whatever adapters.
        mains: Adapters of a whole team each, of which main's is taken.
        subs: Likewise, of which the others are.
        questions: What is asked.
    """
    main = team.module.main

    def accuracy(mine: Adapters, theirs: Adapters) -> float:
        team.take({**theirs, main: mine[main]})
        right = [
            group.rollouts[0].scores[0].correct
            for start in range(0, len(questions), PER_BATCH)
            for group in team.play(questions[start : start + PER_BATCH], temperature=0)
        ]
        return statistics.fmean(right)

    found: Grid = []
    for mine in mains:
        found.append([accuracy(mine, theirs) for theirs in subs])
        print(f"{len(found)} of {len(mains)} mains have played", flush=True)
    return found


def gap(found: Grid) -> float:
    """How much better partners of the same moment or run are than others, main and sub-agents held: 0 without a pact.

    The mean over all pairs of moments i, j of (a_ii + a_jj - a_ij - a_ji) / 2: what either side's own skill adds to its
    row or column cancels.

    Args:
        found: As many rows as columns.
    """
    size = range(len(found))
    pairs = [(i, j) for i in size for j in size if i < j]
    return statistics.fmean((found[i][i] + found[j][j] - found[i][j] - found[j][i]) / 2 for i, j in pairs)


def draw(grids: dict[str, tuple[list[str], Grid]], path: Path) -> None:
    """Draw the heat maps.

    Args:
        grids: By title; names of the moments, and the accuracies.
        path: The picture to write.
    """
    figure = Figure(figsize=(4.6 * len(grids), 4.2), layout="constrained")
    every = [value for _, values in grids.values() for row in values for value in row]
    for axes, (title, (names, values)) in zip(
        figure.subplots(1, len(grids), squeeze=False).flat, grids.items(), strict=True
    ):
        _heat_map(axes, names, values, (min(every), max(every)))
        axes.set_title(title)
    save(figure, path)


def _heat_map(axes: Axes, names: Sequence[str], values: Grid, limits: tuple[float, float]) -> None:
    axes.imshow(values, vmin=limits[0], vmax=limits[1], cmap="viridis")
    middle = sum(limits) / 2
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            axes.text(j, i, f"{value:.0%}", ha="center", va="center", color="white" if value < middle else "black")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("sub-agents of")
    axes.set_ylabel("main of")


def table(names: Sequence[str], values: Grid) -> str:
    """Accuracies in Markdown, a line for each main.

    Args:
        names: Of the moments.
        values: The accuracies.
    """
    rows = [(name, *(f"{value:.1%}" for value in row)) for name, row in zip(names, values, strict=True)]
    return markdown(("main", *names), rows)


def report() -> str:
    """The tables of all records, whose pictures are drawn too."""
    parts = []
    for name, record in read(NAME).items():
        found = {title: one for title, one in record.items() if title != "questions"}
        grids = {title: (one["names"], one["accuracy"]) for title, one in found.items()}
        draw(grids, FOLDER / f"crossplay-{name}.png")
        for title, (names, values) in grids.items():
            parts += [f"{title}: partners of the same moment gain {gap(values):+.1%}", table(names, values)]
    return "\n\n".join(parts)


def main() -> None:
    """Play all pairs, record and show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--name", default="team", help="name of the record and of the picture")
    arguments = parser.parse_args()
    teams = {run.name: TrainedTeam(run) for run in arguments.runs}
    first = next(iter(teams.values()))
    questions = first.task.questions("validation")[: arguments.questions]
    grids = {}
    for name, team in teams.items():
        moments = list(team.steps.values())
        grids[name] = ([f"step {step}" for step in team.steps], grid(first, moments, moments, questions))
    if len(teams) > 1:
        ends = [team.steps[max(team.steps)] for team in teams.values()]
        grids["ends of the runs"] = (list(teams), grid(first, ends, ends, questions))
    found = {
        title: {"names": names, "accuracy": values, "gap": gap(values)} for title, (names, values) in grids.items()
    }
    add({f"{NAME}/{arguments.name}": {"questions": len(questions), **found}})
    print(report())


if __name__ == "__main__":
    main()
