"""Curves that the journal does not have: time by phase, learning rates, gradient norms, from TensorBoard's files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mgrpo_lightning.viewer.rows import Damaged

WANTED = {
    "seconds/play": "play/seconds",
    "seconds/idle": "idle/seconds",
    "seconds/update": "update/seconds",
}
"""Names there, and here: the chart is what stands behind the slash."""
OF_ROLES = {
    "grad_norm": "gradient norm",
    "mismatch": "sampler against trainer: abs log rho",
    "lr": "learning rate",
}
Curves = dict[str, list[tuple[int, float]]]


def phase_curves(folders: Sequence[Path], damaged: Damaged) -> Curves:
    """The curves of a run; of a step that was logged twice the last.

    Args:
        folders: With TensorBoard's files; of a run of several processes each has some.
        damaged: Told of folders that cannot be read.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes a second

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # a run that was killed has a file with a torn end
    found: Curves = {}
    for folder in folders:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
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
    role, _, figure = tag.rpartition("/")
    return f"{role}/{OF_ROLES[figure]}" if figure in OF_ROLES and role and "/" not in role else None
