"""Counter-based random numbers against the published generator and for what the sampler needs of them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.policy.sampling.random import stream_of, uniforms

MASK = (1 << 64) - 1


def splitmix64(seed: int, count: int) -> list[int]:
    """The reference generator, in Python integers."""
    state, values = seed & MASK, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        values.append(z ^ (z >> 31))
    return values


def test_reference_has_the_published_values() -> None:
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(-(2**63), 2**63 - 1))
def test_uniforms_are_splitmix64(seed: int) -> None:
    expected = [(value >> 11) * 2.0**-53 for value in splitmix64(seed, 5)]
    assert uniforms(torch.tensor([seed]), torch.arange(5)).tolist() == expected


def test_a_number_does_not_depend_on_the_batch() -> None:
    streams = torch.tensor([stream_of("s", i) for i in range(50)])
    positions = torch.arange(50) % 7
    together = uniforms(streams, positions)
    assert together.tolist() == [float(uniforms(streams[i], positions[i])) for i in range(50)]


def test_numbers_are_uniform_over_positions_and_over_streams() -> None:
    n = 100_000
    streams = torch.tensor([stream_of(i) for i in range(1000)])
    for values in (uniforms(torch.tensor([stream_of("a")]), torch.arange(n)), uniforms(streams, 0)):
        counts = torch.histc(values.double(), bins=10, min=0, max=1)
        expected = len(values) / 10
        assert float(((counts - expected) ** 2 / expected).sum()) < 35  # chi-squared, 9 degrees of freedom: p < 1e-4


def test_streams_differ_by_type_order_and_grouping() -> None:
    parts: list[tuple[int | str, ...]] = [(1, 2), (2, 1), (12,), ("1", 2), ("ab",), ("a", "b"), (1, 2, 0), ()]
    assert len({stream_of(*part) for part in parts}) == len(parts)
    assert stream_of(1, "x") == stream_of(1, "x")
    assert all(-(2**63) <= stream_of(*part) < 2**63 for part in parts)
