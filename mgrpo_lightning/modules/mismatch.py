"""How far the log-probabilities of an update may be from those that were sampled with, and where they are farthest.

A role without lag trains on what its own adapter has just sampled, so log rho is 0 but for numerics. A larger mean says
that sampler and trainer compute different models, and such a step trains on another gradient than it seems to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgrpo_lightning.records.batch import Row
from mgrpo_lightning.records.trajectory import Key

LARGEST_MEAN = {torch.float32: 1e-3, torch.bfloat16: 0.06}
"""Mean abs log rho of a role in one step that numerics explain, by the type that the base computes in."""
LARGEST = {torch.float32: 0.1, torch.bfloat16: 5.0}
"""A single abs log rho above this is told once; in bfloat16 rare tokens reach 3."""


@dataclass(frozen=True)
class Place:
    """One sampled token of a batch."""

    key: Key
    turn: int
    """Of its trajectory, from 0."""
    token: int
    """Position in its trajectory, from 0."""
    length: int
    """Tokens of the trajectory."""

    def __str__(self) -> str:
        """As a message names it."""
        place = ", ".join(f"{name} {value}" for name, value in self.key._asdict().items())
        return f"{place}, turn {self.turn}, token {self.token} of {self.length}"


def worst_place(rows: Sequence[Row], log_ratios: Mapping[Key, Tensor]) -> Place | None:
    """Where abs log rho is largest; None if this rank has computed no row.

    Args:
        rows: Of a batch.
        log_ratios: Of its trajectories that were computed; see ``Update``.
    """
    computed = [row for row in rows if row.key in log_ratios]
    if not computed:
        return None
    row = max(computed, key=lambda row: float(log_ratios[row.key].abs().max()))
    token = int(row.mask.nonzero().flatten()[log_ratios[row.key].abs().argmax()])
    starts = row.mask & ~torch.cat([row.mask.new_zeros(1), row.mask[:-1]])
    return Place(row.key, int(starts[: token + 1].sum()) - 1, token, len(row.ids))
