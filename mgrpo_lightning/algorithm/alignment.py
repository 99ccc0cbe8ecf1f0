"""Trajectory alignment (section 4.1): how many of d slots each of d_k calls fills, by weights or duplicates and drops.

``duplicate_drop`` is the paper's method. If d_k < d, a rollout's trajectories are duplicated at random, with
replacement, up to d. If d_k > d, trajectories are dropped at random down to d. In both cases the expected number of
slots of a real trajectory is d / d_k. ``weights`` gives each trajectory exactly that multiplicity. This has no sampling
noise, and every call is trained.

Both modes return multiplicities, which say the same as the literal K x d slots: a duplicate is not computed twice, it
counts twice. A rollout with d_k = 0 leaves its slots empty (undefined in the paper). Empty slots are masked out of
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
"""Index in a masked slot."""


@ranged("alignment")
@dataclass(frozen=True)
class AlignmentConfig:
    """How the calls of a rollout fill its slots."""

    mode: Literal["duplicate_drop", "weights"] = "weights"
    """``duplicate_drop`` as printed in the paper, or ``weights``, its expectation."""
    slots: Count = 8
    """d, the number of slots per rollout; choose it so that about 99% of rollouts make at most d calls."""

    def __post_init__(self) -> None:
        if self.mode not in ("duplicate_drop", "weights"):
            raise ConfigurationError(f"alignment mode is {self.mode!r}.", hint="set it to duplicate_drop or weights.")


@dataclass(frozen=True)
class Alignment:
    """The aligned calls of one query with K rollouts; rollout k made d_k calls."""

    multiplicity: list[list[float]]
    """K lists of d_k numbers: the number of slots that each real trajectory fills; 0 if it was dropped."""
    indices: list[list[int]] | None
    """K x d: index of the trajectory in each slot, -1 if masked; None in ``weights`` mode."""

    @property
    def mask(self) -> list[bool]:
        """K values: whether the rollout's slots are filled (all d or none)."""
        return [bool(values) for values in self.multiplicity]


def align(counts: Sequence[int], config: AlignmentConfig, seed: int) -> Alignment:
    """Align the trajectories of one role for one query: K rollouts with d_k trajectories each, onto K x d slots.

    Args:
        counts: d_k of each of the K rollouts; only trajectories that could be scored count.
        config: Mode and number of slots d.
        seed: Seed of this query, derived from run seed, step and query. The choices of a rollout depend on this seed
            and k only, so a rerun gives the same alignment, independent of other rollouts.
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
        # Every trajectory once, then duplicates at random, with replacement.
        return [*range(count), *(draw(i, count) for i in range(slots - count))]
    left = list(range(count))
    # Keep d of the d_k trajectories at random, without replacement.
    return sorted(left.pop(draw(i, len(left))) for i in range(slots))


def _multiplicities(indices: Sequence[int], count: int) -> list[float]:
    seen = Counter(indices)
    return [float(seen[i]) for i in range(count)]


def _draws(seed: int, rollout: int) -> Callable[[int, int], int]:
    # Counter-based: a hash of the position and not a stream, so it is the same in every process and Python version. The
    # modulo bias is below n / 2**64.
    def draw(i: int, n: int) -> int:
        digest = blake2b(f"{seed}/{rollout}/{i}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % n

    return draw
