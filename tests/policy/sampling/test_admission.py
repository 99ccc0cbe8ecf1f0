"""A bounded cache: conversations say the same as with all the memory they like, and it is never exceeded."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.sampling.row_cache import RowCache
from mgrpo_lightning.policy.widths import bytes_per_token
from tests.policy.sampling.player import MakePolicy, play

CONTEXT = 256


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows times capacity after each change of a cache's shape."""
    seen: list[int] = []
    resize = RowCache.resize

    def record(cache: RowCache, num_rows: int, capacity: int) -> None:
        resize(cache, num_rows, capacity)
        seen.append(cache.num_rows * cache.capacity)

    monkeypatch.setattr(RowCache, "resize", record)
    return seen


@pytest.mark.parametrize("schedule", ["rounds", "eager"])
@pytest.mark.parametrize("fork", [True, False])
@pytest.mark.parametrize("conversations", [2, 3, 5])
def test_a_short_cache_changes_no_turn(
    make_policy: MakePolicy, sizes: list[int], conversations: int, fork: bool, schedule: Literal["rounds", "eager"]
) -> None:
    policy = make_policy(dtype=torch.float64, context=CONTEXT)
    budget = conversations * CONTEXT
    each = bytes_per_token(policy.base.model.config, torch.float64)
    free = play(policy, schedule, fork=fork)
    assert max(sizes) > budget
    sizes.clear()
    bounded = play(policy, schedule, fork=fork, cache_bytes=budget * each)
    assert max(sizes) <= budget
    for ours, oracle in zip(bounded, free, strict=True):
        assert [ids for _, ids, _ in ours] == [ids for _, ids, _ in oracle]
        for (_, _, some), (_, _, others) in zip(ours, oracle, strict=True):
            torch.testing.assert_close(torch.tensor(some), torch.tensor(others), rtol=0, atol=1e-9)


def test_a_bound_below_two_conversations_is_refused(make_policy: MakePolicy) -> None:
    policy = make_policy(context=CONTEXT)
    with pytest.raises(
        ConfigurationError, match=r"main.*fewer than two conversations of 256 tokens.*HINT: set cache_gib"
    ):
        play(policy, cache_bytes=1000)


def test_a_smaller_cache_keeps_what_is_in_it() -> None:
    cache = RowCache(torch.float32, torch.device("cpu"))
    cache.reserve(4, 128)
    keys = torch.randn(4, 2, 100, 8)
    cache.begin(range(4), torch.zeros(4, dtype=torch.int64), 100)
    cache.update(keys, keys, 0)
    cache.resize(3, 64)
    found: Tensor = cache._stores[0][0]
    assert found.shape == (3, 2, 64, 8)
    assert torch.equal(found, keys[:3, :, :64])
