"""Trajectory alignment (section 4.1): every rollout fills d slots, however many calls d_k it made.

``duplicate_drop`` is the paper: with d_k < d a rollout's trajectories are duplicated at random, with replacement, up
to d; with d_k > d they are dropped at random down to d. In both branches a real trajectory stands in d / d_k slots in
expectation, so ``weights`` gives each exactly that multiplicity: no sampling noise, and every call is trained.

Both return multiplicities. The literal K x d slots and the multiplicities say the same: a duplicate is never computed
twice, it counts double. A rollout with d_k = 0 leaves its slots empty (undefined in the paper): they are masked out of
mean, std and loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.ranges import Count, ranged

EMPTY = -1
"""What stands in a masked slot."""


@ranged("alignment")
@dataclass(frozen=True)
class AlignmentConfig:
    """How the calls of a rollout fill its slots."""

    mode: Literal["duplicate_drop", "weights"] = "weights"
    """``duplicate_drop`` as printed in the paper, or ``weights``, its expectation."""
    slots: Count = 8
    """d, the slots of a rollout; choose it so that about 99% of rollouts make at most d calls."""

    def __post_init__(self) -> None:
        if self.mode not in ("duplicate_drop", "weights"):
            raise ConfigurationError(f"alignment mode is {self.mode!r}.", hint="give duplicate_drop or weights.")


@dataclass(frozen=True)
class Alignment:
    """The aligned calls of one query: K rollouts, of which rollout k made d_k calls."""

    multiplicity: list[list[float]]
    """K lists of d_k numbers: in how many slots each real trajectory stands; 0 if it was dropped."""
    indices: list[list[int]] | None
    """K x d: which of the rollout's trajectories stands in each slot, -1 if masked; None in ``weights`` mode."""

    @property
    def mask(self) -> list[bool]:
        """K: whether the rollout's slots are filled (all d of them are, or none is)."""
        return [bool(values) for values in self.multiplicity]


def align(counts: Sequence[int], config: AlignmentConfig, seed: int) -> Alignment:
    """Align the trajectories of one role for one query.

    Args:
        counts: d_k for each of the K rollouts, counting only trajectories that could be scored.
        config: Mode and number of slots d.
        seed: Seed of this query (of run seed, step and query). The choices of a rollout are a function of seed and k
            alone, so a rerun aligns the same way and other rollouts do not matter.
    """
    if config.mode == "weights":
        return Alignment([[config.slots / count for _ in range(count)] for count in counts], indices=None)
    indices = [fill(count, config.slots, _draws(seed, rollout)) for rollout, count in enumerate(counts)]
    return Alignment([_multiplicities(row, count) for row, count in zip(indices, counts, strict=True)], indices)


def fill(count: int, slots: int, draw: Callable[[int, int], int]) -> list[int]:
    """Duplicate or drop ``count`` trajectories into exactly ``slots`` slots.

    Args:
        count: d_k.
        slots: d.
        draw: ``draw(i, n)`` is the i-th random choice, uniform over ``range(n)``.

    Returns:
        d indices in [0, d_k), or d times -1 if d_k is 0.
    """
    if count == 0:
        return [EMPTY] * slots
    if count <= slots:
        return [*range(count), *(draw(i, count) for i in range(slots - count))]
    left = list(range(count))
    return sorted(left.pop(draw(i, len(left))) for i in range(slots))


def _multiplicities(indices: Sequence[int], count: int) -> list[float]:
    seen = Counter(indices)
    return [float(seen[i]) for i in range(count)]


def _draws(seed: int, rollout: int) -> Callable[[int, int], int]:
    # Counter-based: a hash of the position, not a stream, so it is the same in every process and Python version.
    def draw(i: int, n: int) -> int:
        digest = blake2b(f"{seed}/{rollout}/{i}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % n

    return draw
