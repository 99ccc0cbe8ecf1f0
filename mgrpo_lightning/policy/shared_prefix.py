"""SharedPrefix: what rows of a decoding batch begin with alike is read once for all of them, not once for each.

A decoding step reads the keys and values of every token of every row, and does little with them. Rows that begin with
the same words, such as a system prompt or the K rollouts of one question, attend to these together, in one product,
and to the rest each for itself; the two parts are put together by how much weight each has (Hydragen, arXiv
2402.05099).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

CALL = 1024
"""Tokens whose keys and values take about as long to read as one more call of the kernel takes."""
STRIDE = 64
"""Ids that are compared at a time."""


@dataclass(frozen=True)
class SharedPrefix:
    """What rows begin with alike: all of them, or neighbours."""

    length: int
    """Tokens; no row has fewer in the cache."""
    starts: tuple[int, ...]
    """The first row, and every further one whose first ``length`` tokens are not those of the row before."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> SharedPrefix | None:
        """The one that saves most; None if none saves more than its calls cost.

        Args:
            rows: Ids of each row that are in the cache.
        """
        shortest = min(map(len, rows), default=0)
        alike = [min(shortest, _num_shared(one, other)) for one, other in pairwise(rows)]
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
    """Attention of one token a row, on a CPU and without gradients.

    Args:
        query: n x h x g x D: n rows, and the g heads for each of h key heads.
        key: n x h x S x D.
        value: Like ``key``.
        mask: Additive, n x 1 x 1 x S; every row sees its prefix and at least one token behind it.
        prefix: Of the n rows.
        scale: Of the scores; None: 1 / sqrt(D).

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
    share = torch.sigmoid(shared_weight - own_weight)[..., None]
    return torch.lerp(own.to(share.dtype), shared.to(share.dtype), share).to(query.dtype)


def _together(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """What ``_kernel`` gives for the queries of m rows, m x h x g x D, over the keys of one of them, h x P x D."""
    rows, heads, group, size = query.shape
    one = query.transpose(0, 1).reshape(1, heads, rows * group, size)
    result, weight = _kernel(one, key[None], value[None], None, scale)
    shape = (heads, rows, group)
    return result.reshape(*shape, -1).transpose(0, 1), weight.reshape(shape).transpose(0, 1)


def _kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of the sum of all weights before they are divided by it, B x h x R."""
    result, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, attn_mask=mask, scale=scale
    )
    return result, weight


def _num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix of lists, which takes less than to make the tensors that a forest compares."""
    end = min(len(one), len(other))
    at = 0
    while at < end and one[at : at + STRIDE] == other[at : at + STRIDE]:
        at += STRIDE
    while at < end and one[at] == other[at]:
        at += 1
    return min(at, end)
