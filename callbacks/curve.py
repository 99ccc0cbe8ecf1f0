"""Draw the learning curve of a run as a PNG: held-out accuracy by level, and each role's training reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mgrpo_lightning.persistence.atomic import atomic_path


def draw_curve(
    path: Path, history: Sequence[Mapping[str, Any]], rewards: Mapping[str, Sequence[tuple[int, float]]]
) -> None:
    """Draw the curve and write it atomically as a PNG.

    Args:
        path: The file to write or replace.
        history: Validation records of the root module, sorted by step.
        rewards: By role, (step, mean training reward) of every step.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")  # not pyplot, which looks for a display
    held_out, training = figure.subplots(1, 2)
    _draw_accuracy(held_out, history)
    for role, points in rewards.items():
        training.plot(*zip(*points, strict=True), label=role, linewidth=1.5)
    _finish(training, "Training reward", legend=bool(rewards))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _draw_accuracy(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    for level in sorted({level for record in history for level in record["by_level"]}):
        known = [record for record in history if level in record["by_level"]]
        values = [_drawn(record["by_level"][level]["accuracy"]) for record in known]
        axes.plot(
            [record["step"] for record in known], values, marker="o", markersize=3, linewidth=1, label=f"level {level}"
        )
    steps = [record["step"] for record in history]
    axes.plot(steps, [_drawn(record["accuracy"]) for record in history], "ko-", linewidth=2, label="all")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _finish(axes, "Held-out accuracy", legend=bool(history))


def _drawn(value: float | None) -> float:
    """Value to plot; NaN, which leaves a gap, if no answer could be decided."""
    return math.nan if value is None else value


def _finish(axes: Axes, title: str, *, legend: bool) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False)
