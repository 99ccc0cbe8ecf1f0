"""action_logprobs against a loop over positions: values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from mgrpo_lightning.policy.lm_head import raw_logits
from mgrpo_lightning.policy.logprobs import action_logprobs, score
from mgrpo_lightning.policy.policy import Policy

MakePolicy = Callable[..., Policy]


def ragged_batch(rows: int = 4, width: int = 17) -> tuple[Tensor, Tensor, Tensor]:
    """Random ids, lengths and a mask with holes, as observations between turns make them."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 384, (rows, width), generator=generator)
    lengths = torch.tensor([width, 11, 6, 2])[:rows]
    mask = (torch.rand(rows, width, generator=generator) < 0.6) & (torch.arange(width) < lengths[:, None])
    mask[:, 0] = False
    return ids, lengths, mask


def one_by_one(policy: Policy, ids: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Each id's log-probability from a forward pass over exactly the ids before it, alone in its batch."""
    values = []
    with policy.active():
        for row, position in mask.nonzero().tolist():
            logits = policy.base.model(ids[row : row + 1, :position]).logits[0, -1]
            values.append(torch.log_softmax(logits / temperature, -1)[ids[row, position]])
    return torch.stack(values)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.3])
def test_equals_a_loop_over_positions(make_policy: MakePolicy, temperature: float) -> None:
    policy = make_policy(dtype=torch.float64)
    ids, lengths, mask = ragged_batch()
    values = action_logprobs(policy, ids, lengths, mask, temperature=temperature)
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, one_by_one(policy, ids, mask, temperature), rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 4096])
def test_gradients_equal_a_loop_over_positions(make_policy: MakePolicy, chunk: int) -> None:
    policy = make_policy(dtype=torch.float64)
    ids, lengths, mask = ragged_batch()
    weights = torch.randn(int(mask.sum()), dtype=torch.float64)
    parameters = list(policy.named_parameters().values())
    fast = action_logprobs(policy, ids, lengths, mask, temperature=0.8, chunk=chunk)
    slow = one_by_one(policy, ids, mask, 0.8)
    for ours, oracle in zip(
        torch.autograd.grad((fast * weights).sum(), parameters),
        torch.autograd.grad((slow * weights).sum(), parameters),
        strict=True,
    ):
        assert float(oracle.abs().max()) > 0
        torch.testing.assert_close(ours, oracle, rtol=1e-4, atol=1e-5)


def test_a_row_does_not_see_its_padding_or_the_batch(make_policy: MakePolicy) -> None:
    policy = make_policy(quantization="nf4")
    ids, lengths, mask = ragged_batch()
    values = action_logprobs(policy, ids, lengths, mask, temperature=1.0)
    start = 0
    for row, length in enumerate(lengths.tolist()):
        count = int(mask[row].sum())
        alone = action_logprobs(
            policy, ids[row : row + 1, :length], lengths[row : row + 1], mask[row : row + 1, :length], temperature=1.0
        )
        torch.testing.assert_close(values[start : start + count], alone, rtol=0, atol=1e-4)
        start += count
    other = ids.clone()
    other[torch.arange(ids.shape[1]) >= lengths[:, None]] = 7
    assert torch.equal(action_logprobs(policy, other, lengths, mask, temperature=1.0), values)


def test_observations_are_attended_though_not_scored(make_policy: MakePolicy) -> None:
    policy = make_policy()
    ids, lengths, mask = ragged_batch(rows=1)
    mask[:] = False
    mask[0, -1] = True
    before = action_logprobs(policy, ids, lengths, mask, temperature=1.0)
    ids[0, 4] += 1
    assert not torch.allclose(before, action_logprobs(policy, ids, lengths, mask, temperature=1.0), atol=1e-4)


def test_autocast_changes_nothing(make_policy: MakePolicy) -> None:
    policy = make_policy()
    ids, lengths, mask = ragged_batch()
    plain = action_logprobs(policy, ids, lengths, mask, temperature=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(action_logprobs(policy, ids, lengths, mask, temperature=1.0), plain)


def test_no_logits_outlive_their_chunk(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    ids, lengths, mask = ragged_batch()
    saved: list[tuple[int, ...]] = []
    chunks: list[tuple[int, ...]] = []

    def remember(tensor: Tensor) -> Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
        made = raw_logits(model, hidden)
        chunks.append(tuple(made.shape))
        return made

    monkeypatch.setattr("mgrpo_lightning.policy.logprobs.raw_logits", logits)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        values = action_logprobs(policy, ids, lengths, mask, temperature=1.0, chunk=5)
    assert {rows for rows, _ in chunks} == {5, len(values) % 5}
    weight = {(384, 32), (32, 384)}
    assert not [shape for shape in saved if 384 in shape and shape not in weight]


@pytest.mark.parametrize("where", ["first", "padding"])
def test_impossible_masks_are_refused(make_policy: MakePolicy, where: str) -> None:
    policy = make_policy()
    ids, lengths, mask = ragged_batch()
    mask[1, 0 if where == "first" else -1] = True
    with pytest.raises(AssertionError):
        action_logprobs(policy, ids, lengths, mask, temperature=1.0)


def test_no_action_is_an_empty_result_with_a_gradient(make_policy: MakePolicy) -> None:
    policy = make_policy()
    ids, lengths, mask = ragged_batch()
    values = action_logprobs(policy, ids, lengths, torch.zeros_like(mask), temperature=1.0)
    assert values.shape == (0,)
    torch.autograd.backward(values.sum())


def test_score_without_gradient_equals_score_with(make_policy: MakePolicy) -> None:
    model = make_policy().base.model
    hidden, targets = torch.randn(9, 32), torch.arange(9)
    with_gradient = score(model, hidden.clone().requires_grad_(), targets, temperature=0.7, chunk=4)
    assert torch.equal(with_gradient.detach(), score(model, hidden, targets, temperature=0.7, chunk=4))
