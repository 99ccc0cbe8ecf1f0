"""SharedPrefix: a decoding step on a CPU reads the cached keys and values of a shared prefix once for all rows.

A decoding step reads the cached keys and values of every row but computes little with them, so memory bandwidth limits
its speed. Rows often share a prefix, such as the system prompt or the question of a group's K rollouts. The rows attend
to this prefix together, in one product, and each row attends to its own suffix. The two results are combined by their
softmax weights (Hydragen, arXiv 2402.05099).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

CALL = 1024
"""Cost of one more kernel call, in tokens: reading the keys and values of so many tokens takes about as long."""
STRIDE = 64
"""Number of ids compared at a time."""


@dataclass(frozen=True)
class SharedPrefix:
    """A prefix length, and the groups of neighbouring rows that share a prefix of this length."""

    length: int
    """Tokens of the prefix. Every row has at least so many in the cache."""
    starts: tuple[int, ...]
    """The first row of each group. The rows of one group have the same first ``length`` tokens."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> SharedPrefix | None:
        """Choose the prefix length that saves the most reading; None if no length saves more than its calls cost.

        Args:
            rows: The cached token ids of each row.
        """
        shortest = min(map(len, rows), default=0)
        alike = [min(shortest, _num_shared(one, other)) for one, other in pairwise(rows)]
        # Only lengths at which some neighbours diverge can be best: between two of them a longer prefix saves more.
        best, most = None, 0
        for length in set(alike):
            starts = (0, *(row for row, count in enumerate(alike, start=1) if count < length))
            saved = length * (len(rows) - len(starts)) - CALL * (1 + len(starts))
            if saved > most:
                best, most = cls(length, starts), saved
        return best


def attend_shared(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, prefix: SharedPrefix, scale: float | None
) -> Tensor:
    """Attention in a decoding step (one query token a row), on a CPU and without gradients.

    Args:
        query: n x h x g x D: n rows, h key heads, g query heads for each key head.
        key: Cached keys, n x h x S x D.
        value: Like ``key``.
        mask: Additive attention mask, n x 1 x 1 x S. Every row must see its prefix and at least one token after it.
        prefix: The shared prefix of the n rows.
        scale: Factor of the attention scores; None: 1 / sqrt(D).

    Returns:
        n x h x g x D.
    """
    at = prefix.length
    ends = (*prefix.starts[1:], len(query))
    parts = [
        _together(query[start:end], key[start, :, :at], value[start, :, :at], scale)
        for start, end in zip(prefix.starts, ends, strict=True)
    ]
    shared, shared_weight = (torch.cat(part) for part in zip(*parts, strict=True))
    own, own_weight = _kernel(query, key[:, :, at:], value[:, :, at:], mask[..., at:], scale)
    # The weights are logs of softmax denominators, s and o. The prefix's share e^s / (e^s + e^o) is sigmoid(s - o),
    # which does not overflow.
    share = torch.sigmoid(shared_weight - own_weight)[..., None]
    return torch.lerp(own.to(share.dtype), shared.to(share.dtype), share).to(query.dtype)


def _together(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """Attention of the queries of m rows, m x h x g x D, to the prefix keys of one row, h x P x D, as ``_kernel``.

    The rows become further queries of one row, so the kernel reads the keys once.
    """
    rows, heads, group, size = query.shape
    one = query.transpose(0, 1).reshape(1, heads, rows * group, size)
    result, weight = _kernel(one, key[None], value[None], None, scale)
    shape = (heads, rows, group)
    return result.reshape(*shape, -1).transpose(0, 1), weight.reshape(shape).transpose(0, 1)


def _kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Attention, and the log of its softmax denominator (logsumexp of the scores), B x h x R."""
    # The public scaled_dot_product_attention does not return the logsumexp.
    result, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, attn_mask=mask, scale=scale
    )
    return result, weight


def _num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix of two lists. Compares slices: faster than tensors for ``PrefixTree``."""
    end = min(len(one), len(other))
    at = 0
    while at < end and one[at : at + STRIDE] == other[at : at + STRIDE]:
        at += STRIDE
    while at < end and one[at] == other[at]:
        at += 1
    return min(at, end)
