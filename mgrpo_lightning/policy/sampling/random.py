"""Counter-based random numbers: functions of (stream, position), which neither the batch nor a restart changes.

A stream is a 64-bit hash of what identifies a turn (seed, step, query, rollout, invocation, turn); the position is the
token's index within the turn. The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which is a hash of a
counter and therefore vectorises over rows.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

_GOLDEN = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
_MIX_2 = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB


def stream_of(*parts: int | str) -> int:
    """A signed 64-bit stream from any identifying parts; ``1`` and ``"1"`` differ, so do ``ab`` and ``a, b``."""
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def uniforms(streams: Tensor, position: Tensor | int) -> Tensor:
    """Uniform numbers in [0, 1) with 53 random bits.

    Args:
        streams: Streams, int64, any shape.
        position: Index of the token within its turn, int64, broadcast against ``streams``.

    Returns:
        float64 tensor of the broadcast shape.
    """
    z = streams + (torch.as_tensor(position, dtype=torch.int64, device=streams.device) + 1) * _GOLDEN
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    z = z ^ _shift(z, 31)
    return _shift(z, 11).to(torch.float64) * 2.0**-53


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch shifts signed numbers arithmetically)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
