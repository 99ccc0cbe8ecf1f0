"""Bounds of abs(log rho) between sampler and trainer by dtype, and the turn and token where it is largest.

A role without lag trains on tokens that its current adapter sampled, so log rho is 0 except for numerics. A larger mean
shows that sampler and trainer compute different models. The step's gradient would then be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgrpo_lightning.records.batch import TrainingRow
from mgrpo_lightning.records.trajectory import Key

LARGEST_MEAN = {torch.float32: 1e-3, torch.bfloat16: 0.06}
"""Largest mean abs log rho of a role in one step that numerics can explain, by compute dtype of the base model."""
LARGEST = {torch.float32: 0.1, torch.bfloat16: 5.0}
"""A single abs log rho above this is logged once; in bfloat16, rare tokens reach 3."""


@dataclass(frozen=True)
class Place:
    """Position of one sampled token in a batch."""

    key: Key
    turn: int
    """Turn of its trajectory, from 0."""
    token: int
    """Position in its trajectory, from 0."""
    length: int
    """Number of tokens in the trajectory."""

    def __str__(self) -> str:
        """Format the position for a message."""
        place = ", ".join(f"{name} {value}" for name, value in self.key._asdict().items())
        return f"{place}, turn {self.turn}, token {self.token} of {self.length}"


def worst_place(rows: Sequence[TrainingRow], log_ratios: Mapping[Key, Tensor]) -> Place | None:
    """Return the position with the largest abs log rho; None if this rank computed no row.

    Args:
        rows: Rows of a batch; the segments of a trajectory in their order.
        log_ratios: Log rho of the computed trajectories; see ``Update.log_ratios``.
    """
    masks: dict[Key, list[Tensor]] = {}
    for row in rows:
        if row.key in log_ratios:
            masks.setdefault(row.key, []).append(row.mask)
    if not masks:
        return None
    key = max(masks, key=lambda key: float(log_ratios[key].abs().max()))
    mask = torch.cat(masks[key])
    token = int(mask.nonzero().flatten()[log_ratios[key].abs().argmax()])
    # A turn starts where the mask goes from observation to action. Counting starts up to the token gives its turn.
    starts = mask & ~torch.cat([mask.new_zeros(1), mask[:-1]])
    return Place(key, int(starts[: token + 1].sum()) - 1, token, len(mask))
