"""Log-probabilities of sampled ids, from hidden states at the needed positions only.

Shapes: N sampled ids, H hidden size, V vocabulary. The state of the token before an id predicts it (correctness.md 9).
Sequences are computed as a forest, each token at its own position (correctness.md 10), and no mask of the loss ever
enters the model (correctness.md 4).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mgrpo_lightning.policy.forest import Forest
from mgrpo_lightning.policy.forest_attention import forest_states
from mgrpo_lightning.policy.head import finished_logits, head_product, rows_of_part
from mgrpo_lightning.policy.policy import Policy

LOGITS = 2**23
"""Logits of one chunk, whatever the vocabulary: 32 MiB in float32."""


def action_logprobs(
    policy: Policy | PreTrainedModel,
    ids: Tensor,
    lengths: Tensor,
    mask: Tensor,
    *,
    temperature: float,
    chunk: int | None = None,
) -> Tensor:
    """Log-probabilities of the masked ids of padded rows.

    Args:
        policy: A Policy (its adapter is selected here; keep it selected through the backward pass if layers are
            computed again), or a bare causal LM with whatever adapter is active.
        ids: int64, B x T, padded on the right with any ids.
        lengths: int64, B; the real length of each row.
        mask: bool, B x T; True on ids to score. An id without a predecessor cannot be scored.
        temperature: Divides the logits, above 0.
        chunk: See ``forest_logprobs``.

    Returns:
        float32 (float64 for a float64 model), N, in row-major order of the mask; differentiable.
    """
    assert (*ids.shape, ids.shape[0]) == (*mask.shape, *lengths.shape), "ids, lengths and mask belong together"
    assert not (mask & (torch.arange(ids.shape[1], device=ids.device) >= lengths[:, None])).any(), (
        "padding is not scored"
    )
    forest = Forest.of(row[:length] for row, length in zip(ids.cpu(), lengths.tolist(), strict=True))
    sampled = [path[row[: len(path)]] for path, row in zip(forest.paths, mask.cpu(), strict=True)]
    model, selected = (policy.base.model, policy.active()) if isinstance(policy, Policy) else (policy, nullcontext())
    with selected:
        return forest_logprobs(model, forest, torch.cat(sampled), temperature=temperature, chunk=chunk)


def forest_logprobs(
    model: PreTrainedModel, forest: Forest, places: Tensor, *, temperature: float, chunk: int | None = None
) -> Tensor:
    """Log-probabilities of the ids at some places of a forest; each one has its own sequence before it.

    Neither a T x V nor an N x V tensor exists: the head works on ``chunk`` ids at a time, and what is kept for the
    backward pass is the gradient to the hidden states, N x H.

    Args:
        model: With whatever adapter is selected.
        forest: As built.
        places: int64, N; none of them starts a sequence.
        temperature: Divides the logits, above 0.
        chunk: Ids whose logits exist at one time; None: as many as make about LOGITS.

    Returns:
        float32 (float64 for a float64 model), N, in the order of the places; differentiable.
    """
    assert temperature > 0, "greedy turns have no gradient"
    before = forest.before[places]
    assert (before >= 0).all(), "the first id has no predecessor"
    hidden = forest_states(model, forest).index_select(0, before.to(model.device))
    return score(model, hidden, forest.ids[places].to(model.device), temperature=temperature, chunk=chunk)


def score(
    model: PreTrainedModel, hidden: Tensor, targets: Tensor, *, temperature: float, chunk: int | None = None
) -> Tensor:
    """Log-probabilities of ``targets`` (N) given hidden states (N x H), ``chunk`` rows of logits at a time."""
    assert len(hidden) == len(targets)
    chunk = chunk or max(1, LOGITS // int(model.config.get_text_config().vocab_size))
    if hidden.requires_grad and torch.is_grad_enabled():
        logprobs = _Score.apply(hidden, targets, model, temperature, chunk)  # type: ignore[no-untyped-call]
        assert isinstance(logprobs, Tensor)
        return logprobs
    pieces = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    return torch.cat([_score_chunk(model, h, t, temperature) for h, t in pieces])


def _score_chunk(model: PreTrainedModel, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    product = head_product(model, hidden)
    rows = rows_of_part(product)
    return torch.cat(
        [
            _logprobs(finished_logits(model, part), temperature).gather(-1, ids[:, None]).squeeze(-1)
            for part, ids in zip(product.split(rows), targets.split(rows), strict=True)
        ]
    )


def _logprobs(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(_tempered(logits, temperature), dim=-1)


def _tempered(values: Tensor, temperature: float) -> Tensor:
    return values if temperature == 1 else values / temperature


class _Score(torch.autograd.Function):
    """Log-probabilities whose backward pass recomputes nothing.

    The head is frozen and a log-probability depends on its own hidden state alone, so the gradient to the hidden states
    is found together with the logits of each chunk, and only scaled in the backward pass. Part by part, what the head
    computed is overwritten with its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, model: PreTrainedModel, temperature: float, chunk: int
    ) -> Tensor:
        logprobs, gradients = [], []
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            with torch.enable_grad():
                h = h.detach().requires_grad_()
                product = head_product(model, h)
            slope = product.detach()
            rows = rows_of_part(slope)
            for part, ids in zip(slope.split(rows), t.split(rows), strict=True):
                found, gradient = _slope(model, part, ids, temperature)
                logprobs.append(found)
                part.copy_(gradient)
            gradients += torch.autograd.grad(product, h, slope)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grads[0][:, None]).to(gradient.dtype), None, None, None, None


def _slope(model: PreTrainedModel, product: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of ``targets`` (n), and their gradients to the head's product (n x V)."""
    with torch.enable_grad():
        product = product.detach().requires_grad_()
        logits = finished_logits(model, product)
    every = _logprobs(logits.detach(), temperature)
    logprobs = every.gather(-1, targets[:, None]).squeeze(-1)
    # to the logits: 1 at the id itself, less the probabilities; in the place of these
    slope = every.exp_().neg_().scatter_add_(-1, targets[:, None], torch.ones_like(every[:, :1]))
    (gradient,) = torch.autograd.grad(logits, product, _tempered(slope, temperature))
    return logprobs, gradient
