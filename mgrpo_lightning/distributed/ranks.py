"""Sum metrics and gradients over the ranks of a process group (all-reduce); refuse ranks that resume at other steps.

Each rank plays a part of a step's queries and computes gradients from its own rows. The model is never wrapped in DDP.
After the last micro-batch, the gradients of one adapter are summed over the ranks as one flat tensor of a few MB. With
one rank, or without a process group, every function returns its input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn

from mgrpo_lightning.errors import DataError


def num_ranks() -> int:
    """Number of ranks in the process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def over_ranks(values: Sequence[float], device: torch.device, *, largest: bool = False) -> list[float]:
    """Sum each value over all ranks, or take the maximum, in float64.

    Args:
        values: The same number of values in the same order on every rank (correctness.md 26).
        device: Device of the process group.
        largest: Take the maximum instead of the sum.
    """
    if num_ranks() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)
    return [float(value) for value in tensor]


def refuse_apart(num_steps: int, device: torch.device) -> None:
    """Require that all ranks resume from the same step.

    Each rank looks for the last checkpoint itself, and a network file system may show them different files.

    Args:
        num_steps: Steps done, according to this rank's checkpoint.
        device: Device of the process group.

    Raises:
        DataError: The ranks differ. It is raised on every rank.
    """
    # One maximum of n and one of -n give the largest and the smallest step in a single all-reduce.
    most, least = over_ranks([num_steps, -num_steps], device, largest=True)
    if most != -least:
        raise DataError(
            f"ranks resume from different steps, {int(-least)} to {int(most)}: nodes see different checkpoints.",
            hint="start again when every node sees the newest checkpoint, or give its file as --ckpt_path.",
        )


def add_up_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their sum over all ranks; a rank without gradients counts as zero.

    If no rank has a gradient, the gradients stay None and not zero, because AdamW moves parameters on zero gradients.

    Args:
        parameters: Parameters of one adapter, in the same order on every rank; at least one.
    """
    if num_ranks() == 1:
        return
    # Every rank must take part in the same collectives, so all ranks agree first on whether there is work.
    (working,) = over_ranks([float(any(p.grad is not None for p in parameters))], parameters[0].device)
    if not working:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    dist.all_reduce(flat)
    for parameter, total in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        # A copy, because a view would keep the whole flat tensor in memory.
        parameter.grad = total.view_as(parameter).clone()
