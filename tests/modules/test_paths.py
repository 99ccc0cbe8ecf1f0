"""Every path from rows to a gradient trains the sampled tokens and no other (correctness.md 6)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mgrpo_lightning.policy.logprobs import prefix_tree_logprobs
from mgrpo_lightning.policy.prefix_tree import PrefixTree
from tests.modules.conftest import MakeRoles, gradients, grown, random_batch

PATHS: dict[str, tuple[int, int, bool, bool]] = {
    "rows alone": (1, 4096, False, False),
    "rows together": (10_000, 4096, False, False),
    "head in chunks": (10_000, 3, False, False),
    "rows alone, head in chunks": (1, 3, False, False),
    "layers computed again": (30, 4096, True, False),
    "dense copy": (30, 4096, False, True),
    "dense copy, layers computed again": (30, 4096, True, True),
}
"""Token budget of a micro-batch, positions of the head at a time, gradient checkpointing, and a dense copy."""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("objective", [{}, {"kind": "supervised"}, {"kl": 0.5}, {"ratio": "sequence"}])
def test_every_path_trains_the_sampled_tokens_only(
    make_roles: MakeRoles,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    objective: dict[str, object],
) -> None:
    batch = random_batch("main", rows=5)
    batch = replace(batch, rows=[*batch.rows, *grown(batch.rows[:3])])
    oracle = make_roles(10_000, **objective)["main"]
    monkeypatch.setattr("mgrpo_lightning.modules.update.prefix_tree_logprobs", _each_row_alone)
    expected = oracle.update(batch)
    budget, chunk, again, dense = PATHS[path]
    monkeypatch.setattr(
        "mgrpo_lightning.modules.update.prefix_tree_logprobs", functools.partial(prefix_tree_logprobs, chunk=chunk)
    )
    module = make_roles(budget, dense_copy=dense, **objective)["main"]
    module.gradient_checkpointing = again
    metrics = module.update(batch)
    assert metrics["trained_tokens"] == sum(int(row.mask.sum()) for row in batch.rows)
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-10)
    for name, gradient in gradients(oracle).items():
        torch.testing.assert_close(gradients(module)[name], gradient, rtol=1e-8, atol=1e-12)


def _each_row_alone(
    model: Callable[..., torch.Tensor], prefix_tree: PrefixTree, places: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """The plain way: the model's own logits at every position of every row, and the sampled ones picked at the end."""
    found: dict[int, torch.Tensor] = {}
    for path in prefix_tree.paths:
        ids = prefix_tree.ids[path]
        logits = model(input_ids=ids[None], use_cache=False).logits[0] / temperature  # type: ignore[attr-defined]
        logprobs = torch.log_softmax(logits[:-1], dim=-1).gather(-1, ids[1:, None]).squeeze(-1)
        found |= zip(path[1:].tolist(), logprobs, strict=True)
    return torch.stack([found[place] for place in places.tolist()])
