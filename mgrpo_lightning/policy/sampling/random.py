"""Counter-based random numbers: a hash of (stream, position), so that neither batches nor restarts change them.

A stream is a 64-bit hash of the turn's identity (seed, step, query, rollout, invocation, turn). The position is the
token's index within the turn. The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). It hashes a counter, so
one tensor operation draws the numbers of all rows.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

_GOLDEN = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
_MIX_2 = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB


def stream_of(*parts: int | str) -> int:
    """Hash any identifying parts to a signed 64-bit stream. ``1`` and ``"1"`` differ, and so do ``ab`` and ``a, b``."""
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def uniforms(streams: Tensor, position: Tensor | int) -> Tensor:
    """Uniform numbers in [0, 1) with 53 random bits.

    Args:
        streams: Streams from ``stream_of``, int64, any shape.
        position: Index of the token within its turn, int64, broadcast against ``streams``.

    Returns:
        float64 tensor of the broadcast shape.
    """
    # SplitMix64 with wrapping signed multiplication: int64 products keep the same low 64 bits as unsigned ones.
    z = streams + (torch.as_tensor(position, dtype=torch.int64, device=streams.device) + 1) * _GOLDEN
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    z = z ^ _shift(z, 31)
    return _shift(z, 11).to(torch.float64) * 2.0**-53


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64. The mask clears the sign bits that torch's arithmetic shift copies in."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
