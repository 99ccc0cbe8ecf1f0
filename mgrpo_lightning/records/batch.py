"""Row, AlignedBatch and TeamBatch: what a role trains on in one optimizer step, and what all roles train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mgrpo_lightning.records.trajectory import Group, Key, Trajectory


@dataclass(frozen=True)
class Row:
    """One trajectory with what its update needs; one that is aligned m times is one row, with m in its coefficient."""

    key: Key
    ids: Tensor
    """Token ids, int64, shape (T,)."""
    mask: Tensor
    """True on sampled ids, bool, shape (T,)."""
    behaviour: Tensor
    """Behaviour log-probabilities of the sampled ids, float32, shape (mask.sum(),)."""
    advantage: float
    """Group-relative advantage, broadcast to every sampled token."""
    coefficient: float
    """Its share in the loss; those of a batch add up to 1."""
    temperature: float
    """Sampling temperature of the behaviour policy."""
    versions: tuple[int, ...]
    """Policy version of each turn."""

    @classmethod
    def of(cls, trajectory: Trajectory, *, advantage: float, coefficient: float) -> Row:
        """The row of one trajectory.

        Args:
            trajectory: The token-exact record.
            advantage: Its advantage in its group.
            coefficient: Its share in the loss of the step.
        """
        mask = torch.tensor(trajectory.action_mask, dtype=torch.bool)
        return cls(
            key=trajectory.key,
            ids=torch.tensor(trajectory.ids, dtype=torch.int64),
            mask=mask,
            behaviour=torch.tensor(trajectory.logprobs, dtype=torch.float32)[mask],
            advantage=advantage,
            coefficient=coefficient,
            temperature=trajectory.temperature,
            versions=tuple(span.version for span in trajectory.spans if span.kind == "action"),
        )


@dataclass(frozen=True)
class AlignedBatch:
    """All rows of one role in one optimizer step, with the statistics of their groups."""

    role: str
    rows: list[Row]
    num_groups: int = 0
    """Queries in which the role has at least one aligned trajectory."""
    num_degenerate: int = 0
    """Those whose advantages are all 0: no spread of rewards, or a single member."""
    num_failed: int = 0
    """Trajectories that left their group because their reward could not be decided."""


@dataclass(frozen=True)
class TeamBatch:
    """One optimizer step of the whole team."""

    step: int
    groups: list[Group]
    roles: Mapping[str, AlignedBatch]
    """What each role trains on now; with a lag, of an earlier step."""
    played: Mapping[str, AlignedBatch]
    """How the groups were aligned."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time: ``play``, and of that ``idle``, in which nothing was computed."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of this rank's part: calls in which a tool broke down, and demonstrations that were not scored right."""
