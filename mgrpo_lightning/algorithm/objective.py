"""Loss of one role (eq. 14 to 19): clipped surrogate, truncated importance weight, KL penalty (k3), or cross-entropy.

Three policies are distinguished:

* *behaviour*: it sampled the tokens; its log-probabilities are stored in the trajectory.
* *proximal*: the ratio is clipped around it. By default it is the behaviour policy, and the ratio is that of the paper.
  Else it is the adapter before the update of the batch, recomputed by the trainer once, however many optimizer steps
  the update takes. A truncated importance weight may then correct the difference from the behaviour policy, which an
  older adapter or other numerics cause.
* *current*: it is trained; only its log-probabilities carry a gradient.

A row is one token sequence: a trajectory, or one of its segments if its agent started anew with another context. All
segments of a trajectory have its A and its c. With rho = current / proximal, w = min(proximal / behaviour, cap), and A
the advantage and omega the weight of a token, both the same for all tokens of a trajectory, the loss is

    sum over tokens of  omega ( -w min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) + kl k3 )

omega = c / n for ``trajectory_mean`` (c: coefficient of the trajectory, n: number of sampled tokens of all its
segments), and c / (sum of c n over all trajectories of the training step) for ``token_mean``. So a trajectory has the
same weight, however many segments its tokens are in. The loss is a plain sum, because omega contains the division. In
both cases the omegas of all sampled tokens of a step sum to 1. So any split into micro-batches or ranks gives the same
gradient. Minibatches are a split too: each is an optimizer step of its own with the omegas of the whole batch, so at
one adapter their gradients sum to that of the batch. The paper says nothing of segments. A ratio over the sequence is
that of a row, as each row was sampled with a context of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mgrpo_lightning.algorithm.config import ObjectiveConfig

LARGEST_LOG_RATIO = 20.0
"""Bound on abs(log rho), far outside of every clip range. Without it, ``sequence_product`` overflows on long traces: as
printed in the paper, it is the exp of a sum of hundreds of terms."""


@dataclass(frozen=True)
class LossOutput:
    """Loss of a micro-batch, and the sums from which its metrics are computed."""

    loss: Tensor
    """Scalar for backward. The losses of a step's micro-batches add up to the step's loss."""
    sums: dict[str, float]
    """Sums by name, in sorted order. Add them over micro-batches and ranks."""


def surrogate_loss(
    logprobs: Tensor,
    behaviour: Tensor,
    rows: Tensor,
    advantages: Tensor,
    coefficients: Tensor,
    *,
    config: ObjectiveConfig,
    batch_tokens: float,
    num_actions: Tensor | None = None,
    proximal: Tensor | None = None,
    reference: Tensor | None = None,
    correction_cap: float | None = None,
) -> LossOutput:
    """Loss of one micro-batch with N sampled tokens in B rows: the negative of the paper's J.

    Args:
        logprobs: Log-probability of each token under the current policy, with gradient, shape (N,).
        behaviour: The same under the behaviour policy, as its sampler stored them, shape (N,).
        rows: Row of each token, int64 in [0, B), shape (N,). A ratio over the sequence requires whole rows.
        advantages: A of each row's trajectory, shape (B,); not read by the ``supervised`` kind.
        coefficients: c of each row's trajectory, shape (B,); over all trajectories of the training step they sum to 1.
        config: Kind, ratio, reduction, clip range and KL weight.
        batch_tokens: Sum of c n over all trajectories of the training step, on all ranks; read by ``token_mean``.
        num_actions: n of each row's trajectory, shape (B,). None: each row is a whole trajectory.
        proximal: Log-probabilities under the proximal policy, shape (N,); None: it is the behaviour policy.
        reference: Log-probabilities under the frozen start adapter, shape (N,); given if and only if kl > 0.
        correction_cap: Upper bound of the importance weight proximal / behaviour; None: no weight. Needs ``proximal``.
    """
    assert logprobs.shape == behaviour.shape == rows.shape, "one log-probability of each policy for each token"
    assert advantages.shape == coefficients.shape, "one advantage and one coefficient for each trajectory"
    assert (config.kl > 0) == (reference is not None), "reference log-probabilities come with kl > 0"
    assert correction_cap is None or proximal is not None, "a correction needs the proximal policy"
    lengths = rows.bincount(minlength=len(coefficients))
    if num_actions is None:
        num_actions = lengths
    divisor = num_actions if config.reduction == "trajectory_mean" else batch_tokens
    # float32 would round coefficient and divisor before they are divided.
    weights = (coefficients / divisor).to(logprobs.dtype)[rows]
    if config.kind == "supervised":
        return LossOutput(-(weights * logprobs).sum(), {"tokens": float(len(rows))})

    anchor = behaviour if proximal is None else proximal.detach()
    ratio = _log_ratio(logprobs - anchor, rows, lengths, config).exp()
    advantage = advantages.to(logprobs.dtype)[rows]
    # Of both terms the smaller one counts, so clipping can only remove an incentive to move, never add one.
    bounded = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    losses = -torch.minimum(ratio * advantage, bounded * advantage)
    clipped = (bounded * advantage < ratio * advantage).sum()
    sums = {"tokens": float(len(rows)), "clipped": float(clipped)}
    if correction_cap is not None:
        # Both log-probabilities are constants here, so the weight carries no gradient.
        correction = (anchor - behaviour).exp().clamp(max=correction_cap)
        losses = losses * correction
        sums["correction"] = float(correction.sum())
    if reference is not None:
        kl = k3(logprobs, reference.detach())
        losses = losses + config.kl * kl
        sums["kl"] = float(kl.detach().sum())
    return LossOutput((weights * losses).sum(), dict(sorted(sums.items())))


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate KL(current || reference) at each sampled token, shape (N,): unbiased and never negative."""
    difference = reference - logprobs
    return difference.exp() - difference - 1


def _log_ratio(token: Tensor, rows: Tensor, lengths: Tensor, config: ObjectiveConfig) -> Tensor:
    """Log rho at each token, shape (N,): of the token or of its row, within ``LARGEST_LOG_RATIO``."""
    if config.ratio == "token":
        return token.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    total = token.new_zeros(len(lengths)).index_add(0, rows, token)
    if config.ratio == "sequence":
        total = total / lengths
    return total.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)[rows]
