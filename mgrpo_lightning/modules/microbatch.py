"""Cutting the rows of one optimizer step into micro-batches by a token budget, and padding one to a rectangle.

Rollouts of a group often say the same word for word. Such rows are computed once: a micro-batch holds each different
sequence, and which of its log-probabilities belongs to which row; advantages and behaviour stay each row's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mgrpo_lightning.data.batch import Row


@dataclass(frozen=True)
class MicroBatch:
    """B rows with N sampled tokens, and their S different sequences, padded on the right to the longest, T tokens.

    Under a causal mask no token sees what stands right of it, so padding on the right needs no attention mask.
    """

    ids: Tensor
    """Token ids, int64, shape (S, T); 0 on padding, which nothing reads."""
    lengths: Tensor
    """Real tokens of each sequence, int64, shape (S,)."""
    mask: Tensor
    """True on sampled ids, bool, shape (S, T)."""
    places: Tensor
    """Where each row's sampled ids stand among those of all sequences, which are row-major, int64, shape (N,)."""
    rows: Tensor
    """Row index of each of them, int64, shape (N,)."""
    behaviour: Tensor
    """Behaviour log-probability of each of them, float32, shape (N,)."""
    advantages: Tensor
    """float64, shape (B,)."""
    coefficients: Tensor
    """float64, shape (B,)."""
    temperature: float
    """Sampling temperature, the same for all rows."""


def split(rows: Sequence[Row], token_budget: int) -> Iterator[list[Row]]:
    """Group rows of like length, so that S x T stays within the budget; a longer single sequence stands alone.

    Args:
        rows: All rows of a step.
        token_budget: Bound on S x T, padding included.
    """
    ordered = sorted(rows, key=lambda row: (row.temperature, -len(row.ids), row.key))
    batch: list[Row] = []
    size = 0
    for same in _by_sequence(ordered):
        first = same[0]
        if batch and (first.temperature != batch[0].temperature or (size + 1) * len(batch[0].ids) > token_budget):
            yield batch
            batch, size = [], 0
        batch, size = batch + same, size + 1
    if batch:
        yield batch


def collate(rows: Sequence[Row], device: torch.device) -> MicroBatch:
    """Pad the rows' different sequences to one rectangle on the device.

    Args:
        rows: Rows of one temperature.
        device: Where the policy computes.
    """
    sequences = _by_sequence(rows)
    ordered = [row for same in sequences for row in same]
    counts = torch.tensor([len(row.behaviour) for row in ordered])
    ends = torch.tensor([len(same[0].behaviour) for same in sequences]).cumsum(0).tolist()
    places = [
        torch.arange(end - len(row.behaviour), end) for end, same in zip(ends, sequences, strict=True) for row in same
    ]
    return MicroBatch(
        ids=pad_sequence([same[0].ids for same in sequences], batch_first=True).to(device),
        lengths=torch.tensor([len(same[0].ids) for same in sequences], device=device),
        mask=pad_sequence([same[0].mask for same in sequences], batch_first=True).to(device),
        places=torch.cat(places).to(device),
        rows=torch.repeat_interleave(torch.arange(len(ordered)), counts).to(device),
        behaviour=torch.cat([row.behaviour for row in ordered]).to(device),
        advantages=torch.tensor([row.advantage for row in ordered], dtype=torch.float64, device=device),
        coefficients=torch.tensor([row.coefficient for row in ordered], dtype=torch.float64, device=device),
        temperature=ordered[0].temperature,
    )


def _by_sequence(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one temperature with the same ids, sampled at the same places, together; in the order of the first."""
    found: dict[tuple[float, bytes, bytes], list[Row]] = {}
    for row in rows:
        key = (row.temperature, row.ids.numpy().tobytes(), row.mask.numpy().tobytes())
        found.setdefault(key, []).append(row)
    return list(found.values())
