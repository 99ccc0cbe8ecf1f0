"""Shared prefixes: attention in two parts is attention over whole rows, and the prefix that saves most is found."""

from __future__ import annotations

import random

import pytest
import torch

from mgrpo_lightning.policy.cpu import decode_attention
from mgrpo_lightning.policy.cpu.decode_attention import SharedPrefix, attend_shared

AT = 9
"""Tokens of the prefix."""


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("starts", [(0,), (0, 2, 3)])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_two_parts_are_attention_over_whole_rows(
    dtype: torch.dtype, error: float, group: int, starts: tuple[int, ...], scale: float | None
) -> None:
    generator = torch.Generator().manual_seed(group)
    rows, heads, span, size = 5, 2, 24, 8
    query = torch.randn(rows, heads, group, size, generator=generator).to(dtype)
    key, value = (torch.randn(rows, heads, span, size, generator=generator).to(dtype) for _ in range(2))
    lengths = torch.tensor([10, 24, 17, 11, 20])
    hidden = torch.arange(span) >= lengths[:, None]
    mask = torch.zeros(rows, span, dtype=dtype).masked_fill(hidden, -torch.inf)[:, None, None]
    leaders = [max(start for start in starts if start <= row) for row in range(rows)]
    whole = [torch.cat([one[leaders, :, :AT], one[:, :, AT:]], 2).double() for one in (key, value)]
    scores = query.double() @ whole[0].mT * (scale or size**-0.5) + mask.double()
    expected = scores.softmax(-1) @ whole[1]
    for one in (key, value):  # only the first row of each run is read
        one[[row for row in range(rows) if row not in starts], :, :AT] = torch.nan
    found = attend_shared(query, key, value, mask, SharedPrefix(AT, starts), scale)
    assert found.dtype == dtype
    assert float((found.double() - expected).abs().max()) <= error


def test_the_one_that_saves_most_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_attention, "CALL", 3)
    monkeypatch.setattr(decode_attention, "STRIDE", 4)

    def saved(rows: list[list[int]], length: int, starts: tuple[int, ...]) -> int:
        return length * (len(rows) - len(starts)) - 3 * (1 + len(starts))

    chance = random.Random(0)
    kinds = set()
    for _ in range(500):
        family = [[chance.randint(1, 2) for _ in range(12)] for _ in range(2)]
        rows = []
        for _ in range(chance.randint(1, 6)):
            kept = chance.choice(family)[: chance.randint(1, 12)]
            rows.append(kept + [chance.randint(1, 2) for _ in range(chance.randint(0, 4))])
        best = 0
        for length in range(1, min(map(len, rows)) + 1):
            others = [row for row in range(1, len(rows)) if rows[row][:length] != rows[row - 1][:length]]
            best = max(best, saved(rows, length, (0, *others)))
        found = SharedPrefix.of(rows)
        if found is None:
            assert best == 0
            continue
        for start, end in zip(found.starts, (*found.starts[1:], len(rows)), strict=True):
            assert all(row[: found.length] == rows[start][: found.length] for row in rows[start:end])
        assert all(len(row) >= found.length for row in rows)
        assert saved(rows, found.length, found.starts) == best > 0
        kinds.add(len(found.starts))
    assert kinds >= {1, 2}


@pytest.mark.parametrize("rows", [[], [[1] * 4000], [[1] * 100, [1] * 100], [[1] * 4000, [2] * 4000]])
def test_what_is_not_worth_its_calls_is_left(rows: list[list[int]]) -> None:
    assert SharedPrefix.of(rows) is None
