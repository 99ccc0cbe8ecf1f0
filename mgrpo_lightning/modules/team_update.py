"""The update of a team: the optimizer steps that its roles take on one team batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.records.batch import TeamBatch


def update_team(
    modules: Sequence[RoleModule],
    batch: TeamBatch,
    optimizer: torch.optim.Optimizer,
    last_step: Callable[[], object],
    *,
    max_steps: int,
) -> tuple[dict[str, float], list[str]]:
    """Compute the gradients of every role, and clip and step each adapter, until every role has gone through its batch.

    Roles with fewer optimizer steps than others rest in the later ones. Roles that share an adapter have the same
    number of steps; in each, their gradients are added, and clipped and stepped once.

    Args:
        modules: The trained roles.
        batch: The batch of each role.
        optimizer: Has one parameter group for each adapter, named like the role that owns it.
        last_step: Steps the optimizer as Lightning does, which counts ``global_step``. It is called once, in place of
            the last step, so a step of the trainer is one aligned batch.
        max_steps: Number of updates in the whole run, for the schedule of the learning rate.

    Returns:
        Metrics by name, ``main/loss`` and so on; and the names of the adapters that had a gradient. ``grad_norm`` is
        the largest of the update's steps.

    Raises:
        MgrpoError: Sampler and trainer differ by more than numerics explain, or a gradient, adapter or moment is not
            finite.
    """
    metrics: dict[str, float] = {}
    updated: set[str] = set()
    by_name = {module.name: module for module in modules}
    count = max((module.num_steps for module in modules), default=1)
    for index in range(count):
        for module in modules:
            if index < module.num_steps:
                metrics |= _gradient(module, batch, first=index == 0)
        moved = []
        for group in optimizer.param_groups:
            name = group["name"]
            if name not in by_name or index >= by_name[name].num_steps:
                continue
            module = by_name[name]
            # Reduce and clip per adapter, not per role: roles that share an adapter add to one gradient first.
            module.reduce()
            metrics[f"{name}/grad_norm"] = max(module.clip(), metrics.get(f"{name}/grad_norm", 0.0))
            group["lr"] = metrics[f"{name}/lr"] = module.learning_rate(max_steps)
            if any(p.grad is not None for p in module.policy.named_parameters().values()):
                moved.append(name)
        if index == count - 1:
            last_step()
        else:
            optimizer.step()
        for name in moved:
            # Before `version` counts the update and a checkpoint could keep it.
            by_name[name].refuse_diverged(optimizer, batch.step)
        # None and not zero: AdamW would move a role that gets no gradient in the next step.
        optimizer.zero_grad(set_to_none=True)
        updated |= {*moved}
    return metrics, sorted(updated)


def _gradient(module: RoleModule, batch: TeamBatch, *, first: bool) -> dict[str, float]:
    """Add the gradient of a role's next optimizer step; return the metrics of its update so far."""
    aligned = batch.roles[module.name]
    values = module.update(aligned)
    if first:  # later, the adapter is not the one that the sampler used
        module.refuse_mismatch(aligned, values, batch.step)
    values["zero_advantage_groups"] = aligned.num_degenerate / max(aligned.num_groups, 1)
    return {f"{module.name}/{key}": value for key, value in values.items()}
