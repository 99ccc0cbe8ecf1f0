"""Ranks: sums over the processes that play and train the same roles together.

Each rank plays some of a step's queries and updates on its own rows. The model is never wrapped: after the last
micro-batch the gradients of one adapter are added up as one flat tensor, a few MB. Without a process group, or in one
of a single rank, every function gives back what it gets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn

from mgrpo_lightning.errors import DataError


def num_ranks() -> int:
    """Ranks of the process group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def over_ranks(values: Sequence[float], device: torch.device, *, largest: bool = False) -> list[float]:
    """Sum, or maximum, of each value over all ranks, in float64.

    Args:
        values: As many on every rank, in the same order (correctness.md 26).
        device: Where the process group computes.
        largest: The maximum.
    """
    if num_ranks() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)
    return [float(value) for value in tensor]


def refuse_apart(num_steps: int, device: torch.device) -> None:
    """Make sure that all ranks go on from the same step, as each has looked for the last checkpoint itself.

    Args:
        num_steps: Of this rank.
        device: Where the process group computes.

    Raises:
        DataError: They do not; on every rank.
    """
    most, least = over_ranks([num_steps, -num_steps], device, largest=True)
    if most != -least:
        raise DataError(
            f"ranks go on from steps {int(-least)} to {int(most)}: not every node sees the same checkpoints.",
            hint="start again when the newest one is to be seen everywhere, or give --ckpt_path its file.",
        )


def add_up_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their sum over all ranks; a rank without work counts as zero.

    Where no rank has a gradient there is none afterwards either: None, not zero, as AdamW moves on zeros.

    Args:
        parameters: Of one adapter, in the same order on every rank; at least one.
    """
    if num_ranks() == 1:
        return
    (working,) = over_ranks([float(any(p.grad is not None for p in parameters))], parameters[0].device)
    if not working:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    dist.all_reduce(flat)
    for parameter, total in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = total.view_as(parameter).clone()
