"""Cutting the rows of one optimizer step into micro-batches by a token budget, and laying one out as a forest.

Rollouts of a group begin with the same prompt and often say the same word for word. What rows begin with is computed
once, and an id that several of them sampled there is scored once; advantages and behaviour stay each row's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgrpo_lightning.policy.forest import LAID_OUT, Forest, ForestBuilder
from mgrpo_lightning.records.batch import Row


@dataclass(frozen=True)
class MicroBatch:
    """B rows with N sampled tokens, which stand at U places of a forest."""

    forest: Forest
    """All rows, on the CPU."""
    scored: Tensor
    """Where an id stands that any row sampled, int64, shape (U,), on the CPU."""
    places: Tensor
    """Which of these each row's sampled ids are, row by row, int64, shape (N,)."""
    rows: Tensor
    """Row index of each sampled id, int64, shape (N,)."""
    behaviour: Tensor
    """Behaviour log-probability of each of them, float32, shape (N,)."""
    advantages: Tensor
    """float64, shape (B,)."""
    coefficients: Tensor
    """float64, shape (B,)."""
    temperature: float
    """Sampling temperature, the same for all rows."""


def split(rows: Sequence[Row], token_budget: int) -> Iterator[list[Row]]:
    """Group rows of one temperature that begin alike, within a budget; a row that is too long stands alone.

    Args:
        rows: All rows of a step.
        token_budget: Bound on the tokens of a micro-batch, counting once what its rows begin with, and on a
            ``LAID_OUT``-th of the tokens of all its rows.
    """
    batch: list[Row] = []
    forest, size = ForestBuilder(), 0
    for row in sorted(rows, key=lambda row: (row.temperature, row.ids.tolist(), row.key)):
        size += len(row.ids)
        tokens = forest.num_tokens + forest.cost(row.ids)
        full = tokens > token_budget or size > LAID_OUT * token_budget
        if batch and (full or row.temperature != batch[0].temperature):
            yield batch
            batch, forest, size = [], ForestBuilder(), len(row.ids)
        batch.append(row)
        forest.add(row.ids)
    if batch:
        yield batch


def collate(rows: Sequence[Row], device: torch.device) -> MicroBatch:
    """Lay the rows out, and find where each one's sampled ids stand.

    Args:
        rows: Rows of one temperature, in the order of ``split``.
        device: Where the policy computes.
    """
    forest = Forest.of(row.ids for row in rows)
    sampled = [path[row.mask] for path, row in zip(forest.paths, rows, strict=True)]
    scored, places = torch.cat(sampled).unique(return_inverse=True)
    counts = torch.tensor([len(ids) for ids in sampled])
    return MicroBatch(
        forest=forest,
        scored=scored,
        places=places.to(device),
        rows=torch.repeat_interleave(torch.arange(len(rows)), counts).to(device),
        behaviour=torch.cat([row.behaviour for row in rows]).to(device),
        advantages=torch.tensor([row.advantage for row in rows], dtype=torch.float64, device=device),
        coefficients=torch.tensor([row.coefficient for row in rows], dtype=torch.float64, device=device),
        temperature=rows[0].temperature,
    )
