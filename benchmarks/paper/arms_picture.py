"""Draw the curves of recorded arms: training success, and held-out accuracy against rollouts, tokens and seconds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.arms_measures import Record, share
from benchmarks.pictures import WINDOW, line_and_range, save, smoothed

AXES: Mapping[str, Callable[[Record, int], float]] = {
    "rollouts": lambda one, step: step * one["rollouts_per_step"],
    "tokens": lambda one, step: sum(one["steps"]["tokens"][:step]) * one["rollouts_per_step"],
    "seconds of play and update": lambda one, step: sum(one["steps"]["seconds"][:step]),
}
"""What was spent until a step."""


def draw(found: Mapping[str, Sequence[Record]], path: Path) -> None:
    """Draw training success, and held-out accuracy against rollouts, tokens and wall time.

    Args:
        found: From ``by_arm``.
        path: The picture to write.
    """
    figure = Figure(figsize=(13, 9), layout="constrained")
    training, *held_out = figure.subplots(2, 2).flat
    for number, (arm, records) in enumerate(found.items()):
        colour, dash = f"C{number % 10}", "-" if number < 10 else "--"  # there are ten colours
        line = partial(line_and_range, name=arm, linewidth=1.5, color=colour, linestyle=dash)
        curves = [smoothed(one["steps"]["correct"]) for one in records]
        x = [(i + WINDOW) * records[0]["rollouts_per_step"] for i in range(min(map(len, curves)))]
        line(training, x, curves)
        for axes, cost in zip(held_out, AXES.values(), strict=True):
            costs = [[cost(one, entry["step"]) for entry in one["validations"]] for one in records]
            middle = [statistics.fmean(values) for values in zip(*costs, strict=True)]
            accuracies = [[share(one, i) for i in range(len(one["validations"]))] for one in records]
            line(axes, middle, accuracies)
    _finish(training, "right rollouts in training (mean of 3 steps)", "rollouts")
    for axes, name in zip(held_out, AXES, strict=True):
        _finish(axes, "held-out accuracy", name)
    figure.legend(*training.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    save(figure, path)


def _finish(axes: Axes, title: str, x: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.grid(alpha=0.3)
