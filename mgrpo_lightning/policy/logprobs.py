"""Log-probabilities of sampled ids and their gradient, from prefix trees, with a chunk of logits at a time.

The hidden state of the token before an id predicts the id (correctness.md 9). Sequences are computed as a prefix tree;
each token has its position in its own sequence (correctness.md 10). The loss mask never enters the model as attention
mask (correctness.md 4).

Shapes: N sampled ids, H hidden size, V vocabulary size.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mgrpo_lightning.policy.lm_head import finished_logits, raw_logits, rows_of_part
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.prefix_tree import PrefixTree
from mgrpo_lightning.policy.tree_attention import prefix_tree_states

LOGITS = 2**23
"""Number of logits in one chunk, for any vocabulary size: 32 MiB in float32."""


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
        policy: A Policy, or a bare causal LM with an adapter already active. The adapter of a Policy is selected during
            this call only; with gradient checkpointing keep it selected through the backward pass.
        ids: Token ids, int64, B x T, padded on the right with any ids.
        lengths: Real length of each row in tokens, int64, B.
        mask: bool, B x T; True on the ids to score. The first id of a row cannot be scored.
        temperature: Divides the logits; above 0.

    Returns:
        float32 (float64 for a float64 model), N, in row-major order of the mask; differentiable.
    """
    assert (*ids.shape, ids.shape[0]) == (*mask.shape, *lengths.shape), "ids, lengths and mask belong together"
    assert not (mask & (torch.arange(ids.shape[1], device=ids.device) >= lengths[:, None])).any(), (
        "padding is not scored"
    )
    prefix_tree = PrefixTree.of(row[:length] for row, length in zip(ids.cpu(), lengths.tolist(), strict=True))
    sampled = [path[row[: len(path)]] for path, row in zip(prefix_tree.paths, mask.cpu(), strict=True)]
    model, selected = (policy.base.model, policy.active()) if isinstance(policy, Policy) else (policy, nullcontext())
    with selected:
        return prefix_tree_logprobs(model, prefix_tree, torch.cat(sampled), temperature=temperature, chunk=chunk)


def prefix_tree_logprobs(
    model: PreTrainedModel, prefix_tree: PrefixTree, places: Tensor, *, temperature: float, chunk: int | None = None
) -> Tensor:
    """Log-probabilities of N tokens of a prefix tree, each given the tokens before it in its own sequence.

    Memory: no T x V or N x V tensor exists. The LM head computes the logits of ``chunk`` ids at a time, and the
    backward pass keeps only the gradient of the hidden states, N x H.

    Args:
        model: The base. The selected adapter takes part.
        prefix_tree: The prefix tree as built, on the CPU.
        places: Indices of the N tokens in the layout, int64. None may be the first of its sequence.
        temperature: Divides the logits; above 0.
        chunk: Number of ids in one chunk; None: as many as make about LOGITS logits.

    Returns:
        float32 (float64 for a float64 model), N, in the order of the places; differentiable.
    """
    assert temperature > 0, "greedy turns have no gradient"
    before = prefix_tree.before[places]
    assert (before >= 0).all(), "the first id has no predecessor"
    hidden = prefix_tree_states(model, prefix_tree).index_select(0, before.to(model.device))
    return score(model, hidden, prefix_tree.ids[places].to(model.device), temperature=temperature, chunk=chunk)


def score(
    model: PreTrainedModel, hidden: Tensor, targets: Tensor, *, temperature: float, chunk: int | None = None
) -> Tensor:
    """Log-probabilities of ``targets`` (N) from hidden states (N x H), with ``chunk`` rows of logits at a time."""
    assert len(hidden) == len(targets)
    chunk = chunk or max(1, LOGITS // int(model.config.get_text_config().vocab_size))
    if hidden.requires_grad and torch.is_grad_enabled():
        logprobs = _Score.apply(hidden, targets, model, temperature, chunk)  # type: ignore[no-untyped-call]
        assert isinstance(logprobs, Tensor)
        return logprobs
    pieces = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    return torch.cat([_score_chunk(model, h, t, temperature) for h, t in pieces])


def _score_chunk(model: PreTrainedModel, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    product = raw_logits(model, hidden)
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
    """Log-probabilities, with the gradient computed in the forward pass.

    The LM head is frozen, and each log-probability depends only on its own hidden state. So the forward pass computes
    the gradient of the hidden states together with each chunk of logits, and the backward pass only scales it. The
    gradient of the logits overwrites the logits part by part, to save memory.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, model: PreTrainedModel, temperature: float, chunk: int
    ) -> Tensor:
        logprobs, gradients = [], []
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            with torch.enable_grad():
                h = h.detach().requires_grad_()
                product = raw_logits(model, h)
            slope = product.detach()
            rows = rows_of_part(slope)
            for part, ids in zip(slope.split(rows), t.split(rows), strict=True):
                found, gradient = _slope(model, part, ids, temperature)
                logprobs.append(found)
                part.copy_(gradient)
            # `slope` shares memory with `product` and holds its gradient by now. The head is linear: its backward pass
            # does not read its own output.
            gradients += torch.autograd.grad(product, h, slope)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grads[0][:, None]).to(gradient.dtype), None, None, None, None


def _slope(model: PreTrainedModel, product: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of ``targets`` (n), and the gradient of each to its row of raw logits ``product`` (n x V)."""
    with torch.enable_grad():
        product = product.detach().requires_grad_()
        logits = finished_logits(model, product)
    every = _logprobs(logits.detach(), temperature)
    logprobs = every.gather(-1, targets[:, None]).squeeze(-1)
    # The gradient of log p(id) to the logits is onehot(id) - p. It is computed in the memory of p.
    slope = every.exp_().neg_().scatter_add_(-1, targets[:, None], torch.ones_like(every[:, :1]))
    (gradient,) = torch.autograd.grad(logits, product, _tempered(slope, temperature))
    return logprobs, gradient
