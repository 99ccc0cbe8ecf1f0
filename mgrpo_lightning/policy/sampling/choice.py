"""Choose one id a row from logits, by inverse CDF with counter-based uniforms.

The log-probability is that of the full distribution at the temperature, the one the trainer recomputes. top-p and top-k
only restrict the choice, which is why training refuses them (correctness.md 8).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mgrpo_lightning.policy.head import rows_of_part
from mgrpo_lightning.policy.sampling.base import SamplingParams
from mgrpo_lightning.policy.sampling.random import uniforms


def choose(
    logits: Tensor,
    params: SamplingParams,
    streams: Tensor,
    positions: Tensor,
    finish: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample from B x V logits.

    Args:
        logits: B x V.
        params: Temperature (0: the first of the largest logits), top_p and top_k.
        streams: int64, B.
        positions: int64, B; index of the id within its turn.
        finish: Makes float32 or float64 logits of some rows; None: they are that.

    Returns:
        ids, int64, B, and their log-probabilities, B (those of temperature 1 if greedy). Where a row's logits are not
        finite numbers, its log-probability is not one either, and its id means nothing.
    """
    rows = rows_of_part(logits)
    parts = zip(logits.split(rows), streams.split(rows), positions.split(rows), strict=True)
    chosen = [_choose(finish(part) if finish else part, params, *places) for part, *places in parts]
    ids, logprobs = zip(*chosen, strict=True)
    return torch.cat(ids), torch.cat(logprobs)


def _choose(logits: Tensor, params: SamplingParams, streams: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    greedy = params.temperature == 0
    logprobs = torch.log_softmax(logits if greedy else logits / params.temperature, dim=-1)
    if greedy:
        ids = logits.argmax(-1)
    else:
        cumulative = _weights(_restrict(logprobs, params)).cumsum(-1)
        total = cumulative[:, -1:]
        if cumulative.is_floating_point():
            target = (uniforms(streams, positions).to(logits.dtype)[:, None] * total).clamp(max=_below(total))
        else:
            target = (uniforms(streams, positions)[:, None] * total).long().clamp(max=total - 1)
        # NaN sorts behind every number; its id must stay a place in the logits until somebody looks.
        ids = torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return ids, logprobs.gather(-1, ids[:, None]).squeeze(-1)


def _weights(probabilities: Tensor) -> Tensor:
    """What is added up to choose by: elsewhere than on a CPU whole numbers, whose sum is the same in any order.

    There sums of floating point numbers are added up in another order each time, and are refused where a run is to be
    deterministic.
    """
    return probabilities if probabilities.is_cpu else _whole(probabilities)


def _whole(probabilities: Tensor) -> Tensor:
    """In units of 2^-52, int64: a sum of 1 is far from what int64 holds, and none is lost that a float32 could tell."""
    return (probabilities.double() * 2**52).long()


def _below(total: Tensor) -> Tensor:
    """The largest number below the total: rounding up to the total would point behind the last possible id."""
    return torch.nextafter(total, torch.zeros_like(total))


def _restrict(logprobs: Tensor, params: SamplingParams) -> Tensor:
    """Probabilities, 0 outside of the top_k largest and of the smallest set of largest ones that reaches top_p."""
    probabilities = logprobs.exp()
    if params.top_k > 0:
        smallest = probabilities.topk(min(params.top_k, probabilities.shape[-1]), dim=-1).values[:, -1:]
        probabilities = probabilities.masked_fill(probabilities < smallest, 0.0)
    if params.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        weights = _weights(ordered)
        before = weights.cumsum(-1) - weights
        ordered = ordered.masked_fill(before >= params.top_p * weights.sum(-1, keepdim=True), 0.0)
        probabilities = torch.zeros_like(ordered).scatter(-1, order, ordered)
    return probabilities
