"""Read curves that are not in the journal from TensorBoard's files: seconds by phase, learning rate, gradient norm."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mgrpo_lightning.viewer.journal_rows import Damaged

WANTED = {
    "seconds/play": "play/seconds",
    "seconds/idle": "idle/seconds",
    "seconds/update": "update/seconds",
}
"""TensorBoard tag to curve name; curves with the same word after the slash share a chart."""
OF_ROLES = {
    "grad_norm": "gradient norm",
    "mismatch": "sampler against trainer: abs log rho",
    "lr": "learning rate",
}
Curves = dict[str, list[tuple[int, float]]]


def phase_curves(folders: Sequence[Path], damaged: Damaged) -> Curves:
    """Read the curves of a run; if a step was logged twice, the last value counts.

    Args:
        folders: Folders with TensorBoard's files; one for each process of the run.
        damaged: Called with each folder that cannot be read and the problem.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # here: it takes a second

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # no warning about the cut file of a killed run
    found: Curves = {}
    for folder in folders:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})  # 0 keeps all points, no random subset
        try:
            events.Reload()
        except OSError as error:
            damaged(folder, f"{folder} cannot be read: {error}.")
            continue
        for tag in events.Tags()["scalars"]:
            if (name := _named(tag)) is not None:
                values = {event.step: event.value for event in events.Scalars(tag)}
                found.setdefault(name, sorted(values.items()))
    return found


def _named(tag: str) -> str | None:
    if tag in WANTED:
        return WANTED[tag]
    role, _, metric = tag.rpartition("/")
    return f"{role}/{OF_ROLES[metric]}" if metric in OF_ROLES and role and "/" not in role else None
