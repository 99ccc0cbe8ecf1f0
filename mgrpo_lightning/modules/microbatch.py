"""Cutting the rows of one optimizer step into micro-batches by a token budget, and padding one to a rectangle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mgrpo_lightning.data.batch import Row


@dataclass(frozen=True)
class MicroBatch:
    """Rows padded on the right to the longest; B rows, T tokens, N sampled tokens.

    Under a causal mask no token sees what stands right of it, so padding on the right needs no attention mask.
    """

    ids: Tensor
    """Token ids, int64, shape (B, T); 0 on padding, which nothing reads."""
    lengths: Tensor
    """Real tokens of each row, int64, shape (B,)."""
    mask: Tensor
    """True on sampled ids, bool, shape (B, T)."""
    behaviour: Tensor
    """Behaviour log-probabilities of the sampled ids, row-major, float32, shape (N,)."""
    rows: Tensor
    """Row index of each sampled id, int64, shape (N,)."""
    advantages: Tensor
    """float64, shape (B,)."""
    coefficients: Tensor
    """float64, shape (B,)."""
    temperature: float
    """Sampling temperature, the same for all rows."""


def split(rows: Sequence[Row], token_budget: int) -> Iterator[list[Row]]:
    """Group rows of like length, so that B x T stays within the budget; a longer single row stands alone.

    Args:
        rows: All rows of a step.
        token_budget: Bound on B x T, padding included.
    """
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.temperature, -len(row.ids), row.key)):
        if batch and (row.temperature != batch[0].temperature or (len(batch) + 1) * len(batch[0].ids) > token_budget):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def collate(rows: Sequence[Row], device: torch.device) -> MicroBatch:
    """Pad rows to one rectangle on the device.

    Args:
        rows: Rows of one temperature.
        device: Where the policy computes.
    """
    mask = pad_sequence([row.mask for row in rows], batch_first=True)
    return MicroBatch(
        ids=pad_sequence([row.ids for row in rows], batch_first=True).to(device),
        lengths=torch.tensor([len(row.ids) for row in rows], device=device),
        mask=mask.to(device),
        behaviour=torch.cat([row.behaviour for row in rows]).to(device),
        rows=torch.nonzero(mask)[:, 0].to(device),
        advantages=torch.tensor([row.advantage for row in rows], dtype=torch.float64, device=device),
        coefficients=torch.tensor([row.coefficient for row in rows], dtype=torch.float64, device=device),
        temperature=rows[0].temperature,
    )
