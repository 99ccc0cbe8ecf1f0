"""Every path from rows to a gradient trains the sampled tokens and no other (correctness.md 6)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch

from mgrpo_lightning.policy.logprobs import action_logprobs
from tests.modules.conftest import MakeRoles, gradients, random_batch

PATHS: dict[str, tuple[int, int, bool]] = {
    "rows alone": (1, 4096, False),
    "rows padded together": (10_000, 4096, False),
    "head in chunks": (10_000, 3, False),
    "rows alone, head in chunks": (1, 3, False),
    "layers computed again": (30, 4096, True),
}
"""Token budget of a micro-batch, positions of the head at a time, and gradient checkpointing."""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("objective", [{}, {"kind": "supervised"}, {"kl": 0.5}, {"ratio": "sequence"}])
def test_every_path_trains_the_sampled_tokens_only(
    make_roles: MakeRoles,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    objective: dict[str, object],
) -> None:
    batch = random_batch("main", rows=5)
    oracle = make_roles(10_000, **objective)["main"]
    monkeypatch.setattr("mgrpo_lightning.modules.role.action_logprobs", _every_position_then_the_mask)
    expected = oracle.update(batch)
    budget, chunk, again = PATHS[path]
    monkeypatch.setattr("mgrpo_lightning.modules.role.action_logprobs", functools.partial(action_logprobs, chunk=chunk))
    module = make_roles(budget, **objective)["main"]
    module.gradient_checkpointing = again
    metrics = module.update(batch)
    assert metrics["trained_tokens"] == sum(int(row.mask.sum()) for row in batch.rows)
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-10)
    for name, gradient in gradients(oracle).items():
        torch.testing.assert_close(gradients(module)[name], gradient, rtol=1e-8, atol=1e-12)


def _every_position_then_the_mask(
    model: Callable[..., torch.Tensor],
    ids: torch.Tensor,
    lengths: torch.Tensor,
    mask: torch.Tensor,
    *,
    temperature: float,
) -> torch.Tensor:
    """The plain way: the model's own logits at every position of every row, and the sampled ones picked at the end."""
    logits = model(input_ids=ids, use_cache=False).logits / temperature  # type: ignore[attr-defined]
    logprobs = torch.log_softmax(logits[:, :-1], dim=-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return logprobs[mask[:, 1:]]
