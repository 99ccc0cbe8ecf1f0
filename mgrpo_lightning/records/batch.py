"""TrainingRow (a segment as tensors), AlignedBatch (one role's rows of a step), TeamBatch (all roles of a step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mgrpo_lightning.records.trajectory import Group, Key, Trajectory


@dataclass(frozen=True)
class TrainingRow:
    """One segment of a trajectory with everything its update needs.

    A trajectory with one segment is one row. One with several has a row for each, which all have its advantage and its
    coefficient. If it fills m slots, it has no more rows: its coefficient includes m.
    """

    key: Key
    ids: Tensor
    """Token ids of the whole segment, int64, shape (T,)."""
    mask: Tensor
    """True on sampled tokens (the action mask), bool, shape (T,)."""
    behaviour: Tensor
    """Behaviour log-probabilities of the sampled tokens, float32, shape (mask.sum(),)."""
    advantage: float
    """Group-relative advantage (eq. 9 to 13), the same for every sampled token."""
    coefficient: float
    """Share of the trajectory in the loss; over the trajectories of a batch, the coefficients sum to 1."""
    temperature: float
    """Sampling temperature of the behaviour policy."""
    versions: tuple[int, ...]
    """Policy version of each turn."""
    segment: int = 0
    """Index of the segment in its trajectory."""

    @classmethod
    def of(cls, trajectory: Trajectory, *, advantage: float, coefficient: float) -> list[TrainingRow]:
        """Create the rows of one trajectory: one for each segment with a sampled token, in their order.

        Args:
            advantage: Its advantage in its group.
            coefficient: Its share of the loss of the step.
        """
        return [
            cls(
                key=trajectory.key,
                ids=torch.tensor(segment.ids, dtype=torch.int64),
                mask=(mask := torch.tensor(segment.action_mask, dtype=torch.bool)),
                behaviour=torch.tensor(segment.logprobs, dtype=torch.float32)[mask],
                advantage=advantage,
                coefficient=coefficient,
                temperature=trajectory.temperature,
                versions=tuple(span.version for span in segment.spans if span.kind == "action"),
                segment=index,
            )
            for index, segment in enumerate(trajectory.segments)
            if any(span.logprobs for span in segment.spans)
        ]


@dataclass(frozen=True)
class AlignedBatch:
    """All rows of one role in one training step, with the statistics of their groups."""

    role: str
    rows: list[TrainingRow]
    num_groups: int = 0
    """Number of queries in which the role has at least one aligned trajectory."""
    num_degenerate: int = 0
    """Number of these queries whose advantages are all 0: reward std below the floor, or one trajectory."""
    num_failed: int = 0
    """Number of trajectories that left their group because their reward could not be decided."""


@dataclass(frozen=True)
class TeamBatch:
    """One training step of the whole team."""

    step: int
    groups: list[Group]
    roles: Mapping[str, AlignedBatch]
    """The batch that each role trains on now; with a lag or a queue, from earlier steps."""
    played: Mapping[str, AlignedBatch]
    """The aligned batch of the groups just played, by role."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time in seconds: ``play``, and within it ``idle``, when nothing was computed."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Counts of this rank, by metric; see ``PlayResult.counts``."""
    agreement: Sequence[float] = ()
    """Counts of this rank by ``Agreement``: how often judge and rule agree. Empty if the task has no judge."""
