"""Helpers for pictures of docs/: their folder, smoothing, a mean line with the range of seeds, atomic saving."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mgrpo_lightning.persistence.atomic import atomic_path

FOLDER = Path("docs/pictures")
WINDOW = 3
"""Steps that a point of a curve is the mean of."""


def smoothed(values: Sequence[float]) -> list[float]:
    """Means of ``WINDOW`` neighbours.

    Args:
        values: Of the steps.
    """
    return [statistics.fmean(values[i : i + WINDOW]) for i in range(len(values) - WINDOW + 1)]


def line_and_range(axes: Axes, x: Sequence[float], curves: Sequence[Sequence[float]], name: str, **style: Any) -> None:
    """Draw the mean of the seeds as a line, and from the smallest to the largest as an area.

    Args:
        axes: Where.
        x: Of the points.
        curves: One for each seed; the shortest decides how many points there are.
        name: In the legend.
        style: Of the line, in the words of ``Axes.plot``.
    """
    values = list(zip(*curves, strict=False))
    points = x[: len(values)]
    (line,) = axes.plot(points, [statistics.fmean(v) for v in values], label=name, **style)
    axes.fill_between(points, [min(v) for v in values], [max(v) for v in values], alpha=0.1, color=line.get_color())


def save(figure: Figure, path: Path, *, dpi: int = 130) -> None:
    """Write a picture, whole or not at all.

    Args:
        figure: What is drawn.
        path: A PNG.
        dpi: Pixels an inch.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
