"""Split the rows of one training step into micro-batches by a token budget; collate each as prefix tree and tensors.

The rollouts of a group start with the same prompt, and often continue with the same tokens. A ``PrefixTree`` computes
each shared prefix once. A sampled token inside a shared prefix is also scored once. Advantages and behaviour
log-probabilities stay separate for each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgrpo_lightning.policy.prefix_tree import LAID_OUT, PrefixTree, PrefixTreeBuilder
from mgrpo_lightning.records.batch import TrainingRow


@dataclass(frozen=True)
class MicroBatch:
    """B rows with N sampled tokens in total, stored in U distinct positions of a prefix tree."""

    prefix_tree: PrefixTree
    """Prefix tree of all rows, on the CPU."""
    scored: Tensor
    """Tree positions of all sampled tokens, without duplicates, int64, shape (U,), on the CPU."""
    places: Tensor
    """Index into ``scored`` of each sampled token, row after row, int64, shape (N,)."""
    rows: Tensor
    """Row index of each sampled token, int64, shape (N,)."""
    behaviour: Tensor
    """Behaviour log-probability of each sampled token, float32, shape (N,)."""
    advantages: Tensor
    """Advantage of each row, float64, shape (B,)."""
    coefficients: Tensor
    """Coefficient of each row, float64, shape (B,)."""
    temperature: float
    """Sampling temperature, the same for all rows."""


def split(rows: Sequence[TrainingRow], token_budget: int) -> Iterator[tuple[list[TrainingRow], PrefixTree]]:
    """Group rows with equal temperature and similar prefixes into micro-batches; a row above the budget gets its own.

    Yields the rows of each micro-batch with their prefix tree, whose size decides where the micro-batch ends.

    Args:
        rows: All rows of a step.
        token_budget: Maximum number of tokens in a micro-batch, where a shared prefix counts once. The sum of the row
            lengths is limited to ``LAID_OUT`` times the budget.
    """
    batch: list[TrainingRow] = []
    prefix_tree, size = PrefixTreeBuilder(), 0
    # Sorting by token ids makes rows with a common prefix neighbours. The key makes ties deterministic.
    for row in sorted(rows, key=lambda row: (row.temperature, row.ids.tolist(), row.key)):
        size += len(row.ids)
        tokens = prefix_tree.num_tokens + prefix_tree.cost(row.ids)
        # Attention reads the keys of every row, also shared ones, so the sum of the row lengths is bounded too.
        full = tokens > token_budget or size > LAID_OUT * token_budget
        if batch and (full or row.temperature != batch[0].temperature):
            yield batch, prefix_tree.build()
            batch, prefix_tree, size = [], PrefixTreeBuilder(), len(row.ids)
        batch.append(row)
        prefix_tree.add(row.ids)
    if batch:
        yield batch, prefix_tree.build()


def collate(rows: Sequence[TrainingRow], prefix_tree: PrefixTree, device: torch.device) -> MicroBatch:
    """Find the positions of the rows' sampled tokens in their prefix tree, and move what the loss reads to the device.

    Args:
        rows: Rows with one temperature.
        prefix_tree: Their prefix tree, with one path a row in the same order.
        device: Device of the policy.
    """
    sampled = [path[row.mask] for path, row in zip(prefix_tree.paths, rows, strict=True)]
    # Two rows that sampled the same token after the same prefix share a position, and the logits there are computed
    # once.
    scored, places = torch.cat(sampled).unique(return_inverse=True)
    counts = torch.tensor([len(ids) for ids in sampled])
    return MicroBatch(
        prefix_tree=prefix_tree,
        scored=scored,
        places=places.to(device),
        rows=torch.repeat_interleave(torch.arange(len(rows)), counts).to(device),
        behaviour=torch.cat([row.behaviour for row in rows]).to(device),
        advantages=torch.tensor([row.advantage for row in rows], dtype=torch.float64, device=device),
        coefficients=torch.tensor([row.coefficient for row in rows], dtype=torch.float64, device=device),
        temperature=rows[0].temperature,
    )
