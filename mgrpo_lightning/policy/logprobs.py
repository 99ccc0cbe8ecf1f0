"""Log-probabilities of sampled ids, from hidden states at the needed positions only.

Shapes: B rows, T positions, N sampled ids, H hidden size, V vocabulary. ``hidden[:, t]`` predicts ``ids[:, t + 1]``
(correctness.md 9). Rows are padded on the right: under a causal mask no real position sees the padding behind it, and
position ids 0..T-1 are right for every row, so neither an attention mask nor lengths enter the model (correctness.md 4,
10).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mgrpo_lightning.policy.head import final_logits, hidden_states
from mgrpo_lightning.policy.policy import Policy

LOGITS = 2**25
"""Logits that exist at one time, whatever the vocabulary: 128 MiB in float32."""


def action_logprobs(
    policy: Policy | PreTrainedModel,
    ids: Tensor,
    lengths: Tensor,
    mask: Tensor,
    *,
    temperature: float,
    chunk: int | None = None,
) -> Tensor:
    """Log-probabilities of the masked ids at ``temperature``.

    Neither a B x T x V nor an N x V tensor exists: the head works on ``chunk`` positions at a time, and what is kept
    for the backward pass is the gradient to the hidden states, N x H.

    Args:
        policy: A Policy (its adapter is selected here; keep it selected through the backward pass if the model is
            checkpointed), or a bare causal LM with whatever adapter is active.
        ids: int64, B x T, padded on the right with any ids.
        lengths: int64, B; the real length of each row.
        mask: bool, B x T; True on ids to score. An id without a predecessor cannot be scored.
        temperature: Divides the logits, above 0.
        chunk: Positions whose logits exist at one time; None: as many as make about LOGITS.

    Returns:
        float32 (float64 for a float64 model), N, in row-major order of the mask; differentiable.
    """
    if isinstance(policy, Policy):
        with policy.active():
            return action_logprobs(policy.base.model, ids, lengths, mask, temperature=temperature, chunk=chunk)
    assert (*ids.shape, ids.shape[0]) == (*mask.shape, *lengths.shape), "ids, lengths and mask belong together"
    assert temperature > 0, "greedy turns have no gradient"
    positions = torch.arange(ids.shape[1], device=ids.device)
    assert not mask[:, 0].any(), "the first id has no predecessor"
    assert not (mask & (positions >= lengths[:, None])).any(), "padding is never scored"
    hidden = hidden_states(policy, ids, position_ids=positions[None])
    hidden = hidden[:, :-1][mask[:, 1:]]
    return score(policy, hidden, ids[mask], temperature=temperature, chunk=chunk)


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
    logprobs = torch.log_softmax(final_logits(model, hidden) / temperature, dim=-1)
    return logprobs.gather(-1, targets[:, None]).squeeze(-1)


class _Score(torch.autograd.Function):
    """Log-probabilities whose backward pass recomputes nothing.

    The head is frozen and a log-probability depends on its own hidden state alone, so the gradient to the hidden states
    is found together with the logits of each chunk, and only scaled in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, model: PreTrainedModel, temperature: float, chunk: int
    ) -> Tensor:
        logprobs, gradients = [], []
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            with torch.enable_grad():
                h = h.detach().requires_grad_()
                logprob = _score_chunk(model, h, t, temperature)
                (gradient,) = torch.autograd.grad(logprob.sum(), h)
            logprobs.append(logprob.detach())
            gradients.append(gradient)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grads[0][:, None]).to(gradient.dtype), None, None, None, None
