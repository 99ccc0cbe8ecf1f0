"""RoleModule: one role's gradient, reduction, clipping and learning rate; refuses mismatch and non-finite values."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mgrpo_lightning.distributed.ranks import add_up_gradients
from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.modules.lr_schedule import learning_rate
from mgrpo_lightning.modules.mismatch import LARGEST, LARGEST_MEAN, worst_place
from mgrpo_lightning.modules.update import Update
from mgrpo_lightning.policy.finite import first_nonfinite
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.records.batch import AlignedBatch
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.roles.config import RoleConfig

log = logging.getLogger(__name__)

_AGAIN = "resume from the last checkpoint (--ckpt_path last) with a lower optimizer.lr"
_SEEN = "the metrics of earlier steps are in the run's log"


class RoleModule(LightningModule):
    """Objective, gradient, gradient clipping and schedule of one role; the root module steps and logs.

    Args:
        name: Name of the role.
        config: The role's block of the team file.
        token_budget: Maximum number of tokens in one micro-batch; see ``split``.
        gradient_checkpointing: Recompute each layer in the backward pass; see ``recomputed_layers``.
    """

    def __init__(
        self, name: str, config: RoleConfig, *, token_budget: int, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.token_budget = token_budget
        self.gradient_checkpointing = gradient_checkpointing
        # A Policy is no nn.Module, so Lightning sees no submodule, and neither moves, wraps nor saves the base model.
        self._policy: Policy | None = None
        self._begun: Update | None = None
        self._told_of_mismatch = False
        self.log_ratios: Mapping[Key, Tensor] = {}
        """Log rho of the last update; see ``Update.log_ratios``."""

    @property
    def num_steps(self) -> int:
        """Optimizer steps that the role takes on each aligned batch."""
        return self.config.optimizer.steps_per_batch

    @property
    def policy(self) -> Policy:
        """The role's policy; available after ``attach``."""
        assert self._policy is not None, f"the policy of {self.name} is not loaded yet"
        return self._policy

    def attach(self, policy: Policy) -> None:
        """Set the role's policy (base model, adapter and chat)."""
        self._policy = policy

    def begin(self, batch: AlignedBatch) -> None:
        """Start an update early, so that ``advance`` can compute it in pieces.

        Args:
            batch: The batch that the next ``update`` will get.
        """
        self._begun = Update(
            self.policy,
            self.config.objective,
            batch,
            self.config.optimizer,
            token_budget=self.token_budget,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    def advance(self) -> bool:
        """Compute one micro-batch of the started update's next optimizer step; return whether there was one."""
        return self._begun is not None and self._begun.advance()

    def update(self, batch: AlignedBatch) -> dict[str, float]:
        """Add this rank's gradient of the next optimizer step on an aligned batch to the role's adapter.

        It is called ``optimizer.steps_per_batch`` times with a batch, and with the next batch after that.

        Args:
            batch: This rank's rows of the role; the coefficients of all ranks sum to 1.

        Returns:
            Metrics of the batch's steps so far; see ``Update.finish``.
        """
        if self._begun is None:
            self.begin(batch)
        begun = self._begun
        assert begun is not None
        assert begun.batch is batch, f"another batch of {self.name} was begun"
        metrics = begun.finish()
        self.log_ratios = begun.log_ratios
        if begun.finished:
            self._begun = None
        return metrics

    def refuse_mismatch(self, batch: AlignedBatch, metrics: Mapping[str, float], step: int) -> None:
        """Require that the trainer computes about the log-probabilities of the sampler, before the adapter changes.

        Roles with a lag or a queue are not checked: an older adapter sampled their tokens.

        Args:
            batch: The batch of the update.
            metrics: Metrics that ``update`` returned.
            step: Training step, from 0.

        Raises:
            MgrpoError: The mean abs log rho is larger than numerics can explain.
        """
        config, dtype = self.config, self.policy.base.model.dtype
        if config.lag or config.queue is not None or config.objective.kind != "mgrpo":
            return
        mean, largest = metrics["mismatch"], metrics["mismatch_max"]
        bound = LARGEST_MEAN.get(dtype, LARGEST_MEAN[torch.float32])
        place = worst_place(batch.rows, self.log_ratios) or "a trajectory of another rank"
        found = (
            f"role {self.name!r}: in step {step} sampler and trainer differ: abs log rho is {mean:.2g} on average "
            f"(bound {bound:g}) and at most {largest:.2g}, at {place}"
        )
        if mean > bound:
            raise MgrpoError(
                f"{found}; the step is discarded.",
                hint="run `mgrpo doctor` with this team; set compute_dtype: float32, or dense_copy: false.",
            )
        if largest > LARGEST.get(dtype, LARGEST[torch.float32]) and not self._told_of_mismatch:
            self._told_of_mismatch = True
            log.warning("%s. Later differences are logged as mismatch_max only.", found)

    def reduce(self) -> None:
        """Sum the adapter's gradient over all ranks. Call it after all roles that share the adapter are computed."""
        add_up_gradients(list(self.policy.named_parameters().values()))

    def clip(self) -> float:
        """Clip the gradient to the role's own bound, and return the norm before clipping (correctness.md 36).

        Raises:
            MgrpoError: The norm is infinite or NaN. A step would destroy the adapter and then its checkpoint.
        """
        # Only this adapter's parameters: a norm over all roles would couple their step sizes.
        parameters = [p for p in self.policy.named_parameters().values() if p.grad is not None]
        if not parameters:
            return 0.0
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.optimizer.clip_norm))
        if not math.isfinite(norm):
            raise MgrpoError(
                f"the gradient of role {self.name!r} has norm {norm} at its update {self.policy.version + 1}; "
                "the step is discarded.",
                hint=f"{_AGAIN}, or another objective.ratio or compute_dtype; {_SEEN}.",
            )
        return norm

    def refuse_diverged(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Require that a step left the adapter and the optimizer moments finite, before any of it is saved.

        Args:
            optimizer: The optimizer after its step; the policy's update count is not increased yet.
            step: Training step, from 0.

        Raises:
            MgrpoError: A value is infinite or NaN.
        """
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.policy.named_parameters().items():
            tensors[name] = parameter.detach()
            tensors |= {f"{key} of {name}": value for key, value in optimizer.state.get(parameter, {}).items()}
        if (found := first_nonfinite(tensors)) is not None:
            raise MgrpoError(
                f"role {self.name!r}: {found} is not finite after its update {self.policy.version + 1} in step {step}; "
                "the step is discarded.",
                hint=f"{_AGAIN}, and optimizer.betas below 1; {_SEEN}.",
            )

    def learning_rate(self, max_steps: int) -> float:
        """Learning rate of the next update, by the role's own update count.

        Args:
            max_steps: Number of updates in the whole run.
        """
        return learning_rate(self.config.optimizer, self.policy.version, max_steps)
