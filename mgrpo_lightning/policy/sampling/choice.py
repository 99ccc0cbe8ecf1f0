"""Choose the next id of each row of logits: temperature, greedy, top-k, top-p; log-probability without top-k, top-p.

The returned log-probability is that of the full distribution at the temperature, which the trainer recomputes. top-p
and top-k restrict only the choice of the id, so training refuses them (correctness.md 8).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mgrpo_lightning.policy.lm_head import rows_of_part
from mgrpo_lightning.policy.sampling.base import SamplingParams
from mgrpo_lightning.policy.sampling.random import uniforms


def choose(
    logits: Tensor,
    params: SamplingParams,
    streams: Tensor,
    positions: Tensor,
    finish: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample one id for each row of B x V logits.

    Args:
        logits: B x V.
        params: Temperature (0: the first of the largest logits), top_p and top_k.
        streams: Stream of random numbers of each row, int64, B.
        positions: Index of the new id within its turn, int64, B.
        finish: Converts some rows of raw logits to final float32 or float64 logits. None: ``logits`` are final.

    Returns:
        The ids, int64, B, and their log-probabilities, B (at temperature 1 if greedy). If a row has logits that are not
        finite, its log-probability is not finite either, and its id has no meaning.
    """
    # Rows are finished in parts, so that a CPU keeps the float32 copies of a part in its cache.
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
        # searchsorted returns V for NaN, as NaN sorts after every number. The clamp keeps gather below in range; the
        # sampler refuses the turn when it ends.
        ids = torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return ids, logprobs.gather(-1, ids[:, None]).squeeze(-1)


def _weights(probabilities: Tensor) -> Tensor:
    """The weights for the cumulative sum: floating point on a CPU, whole numbers on any other device.

    A GPU adds floating point numbers in a varying order, so the sum varies, and torch refuses such a cumulative sum in
    deterministic mode. A sum of whole numbers is the same in any order.
    """
    return probabilities if probabilities.is_cpu else _whole(probabilities)


def _whole(probabilities: Tensor) -> Tensor:
    """Probabilities as int64, in units of 2^-52.

    Their sum, about 2^52, is far below the int64 limit, and the unit is finer than float32 precision.
    """
    return (probabilities.double() * 2**52).long()


def _below(total: Tensor) -> Tensor:
    """The largest number below the total. A target equal to the total would select an index after the last id."""
    return torch.nextafter(total, torch.zeros_like(total))


def _restrict(logprobs: Tensor, params: SamplingParams) -> Tensor:
    """Probabilities with 0 outside the top-k ids and outside the nucleus (the smallest top set that reaches top_p)."""
    probabilities = logprobs.exp()
    if params.top_k > 0:
        smallest = probabilities.topk(min(params.top_k, probabilities.shape[-1]), dim=-1).values[:, -1:]
        probabilities = probabilities.masked_fill(probabilities < smallest, 0.0)
    if params.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        weights = _weights(ordered)
        # An id stays if the ids before it do not reach top_p yet, so the id that crosses top_p stays as well.
        before = weights.cumsum(-1) - weights
        ordered = ordered.masked_fill(before >= params.top_p * weights.sum(-1, keepdim=True), 0.0)
        probabilities = torch.zeros_like(ordered).scatter(-1, order, ordered)
    return probabilities
