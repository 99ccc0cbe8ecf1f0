"""RoleModule: the LightningModule of one role. It turns an aligned batch into gradients of the role's adapter."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mgrpo_lightning.distributed.ranks import add_up_gradients
from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.modules.mismatch import LARGEST, LARGEST_MEAN, worst_place
from mgrpo_lightning.modules.schedule import learning_rate
from mgrpo_lightning.modules.update import Update
from mgrpo_lightning.policy.finite import first_nonfinite
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.records.batch import AlignedBatch
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.roles.config import RoleConfig

log = logging.getLogger(__name__)

_AGAIN = "go on from the last checkpoint (--ckpt_path last) with a lower optimizer.lr"
_SEEN = "the figures of the steps before are in the run's log"


class RoleModule(LightningModule):
    """One role's objective, gradients, clip and schedule; the root module steps and logs.

    Args:
        name: The role.
        config: Its block of the team file.
        token_budget: Bound on the tokens of one micro-batch; see ``split``.
        gradient_checkpointing: Compute each layer again in the backward pass; see ``recomputed_layers``.
    """

    def __init__(
        self, name: str, config: RoleConfig, *, token_budget: int, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.token_budget = token_budget
        self.gradient_checkpointing = gradient_checkpointing
        self._policy: list[
            Policy
        ] = []  # in a list, so that the base is no submodule: it is never moved, saved or wrapped
        self._begun: Update | None = None
        self._told_of_mismatch = False
        self.log_ratios: Mapping[Key, Tensor] = {}
        """Of the last update; see ``Update``."""

    @property
    def policy(self) -> Policy:
        """The role's policy; there after ``attach``."""
        assert self._policy, f"the policy of {self.name} is not loaded yet"
        return self._policy[0]

    def attach(self, policy: Policy) -> None:
        """Give the module its policy.

        Args:
            policy: Base, adapter and chat of this role.
        """
        self._policy = [policy]

    def begin(self, batch: AlignedBatch) -> None:
        """Take a batch whose update may be computed in pieces before it is due.

        Args:
            batch: What the next ``update`` gets.
        """
        self._begun = Update(
            self.policy,
            self.config.objective,
            batch,
            token_budget=self.token_budget,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    def advance(self) -> bool:
        """Compute one micro-batch of what is begun; whether there was one."""
        return self._begun is not None and self._begun.advance()

    def update(self, batch: AlignedBatch) -> dict[str, float]:
        """Add this rank's gradient of one aligned batch to the role's adapter.

        Args:
            batch: This rank's rows of the role in one optimizer step; coefficients of all ranks' add up to 1.

        Returns:
            Its figures; see ``Update.finish``.
        """
        if self._begun is None:
            self.begin(batch)
        begun, self._begun = self._begun, None
        assert begun is not None
        assert begun.batch is batch, f"another batch of {self.name} was begun"
        figures = begun.finish()
        self.log_ratios = begun.log_ratios
        return figures

    def refuse_mismatch(self, batch: AlignedBatch, figures: Mapping[str, float], step: int) -> None:
        """Require that the adapter computes about what was sampled with, before it moves; a role that lags is let be.

        Args:
            batch: What was updated on.
            figures: What ``update`` gave.
            step: Training step, from 0.

        Raises:
            MgrpoError: Abs log rho is larger on average than numerics explain.
        """
        config, dtype = self.config, self.policy.base.model.dtype
        if config.lag or config.queue is not None or config.objective.kind != "mgrpo":
            return
        mean, largest = figures["mismatch"], figures["mismatch_max"]
        bound = LARGEST_MEAN.get(dtype, LARGEST_MEAN[torch.float32])
        place = worst_place(batch.rows, self.log_ratios) or "a trajectory of another rank"
        found = (
            f"role {self.name!r}: in step {step} sampler and trainer differ by abs log rho {mean:.2g} on average "
            f"(bound {bound:g}) and {largest:.2g} at most, at {place}"
        )
        if mean > bound:
            raise MgrpoError(
                f"{found}; the step is not kept.",
                hint="see what `mgrpo doctor` says of this team; set compute_dtype: float32, or dense_copy: false.",
            )
        if largest > LARGEST.get(dtype, LARGEST[torch.float32]) and not self._told_of_mismatch:
            self._told_of_mismatch = True
            log.warning("%s; further ones are in the run's log as mismatch_max.", found)

    def reduce(self) -> None:
        """Add up the adapter's gradient over all ranks, when every role that plays with it is computed."""
        add_up_gradients(list(self.policy.named_parameters().values()))

    def clip(self) -> float:
        """Scale this role's gradient to its own bound; the norm before that (correctness.md 36).

        Raises:
            MgrpoError: The norm is infinite or no number: a step would destroy the adapter, and then its checkpoint.
        """
        parameters = [p for p in self.policy.named_parameters().values() if p.grad is not None]
        if not parameters:
            return 0.0
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.optimizer.clip_norm))
        if not math.isfinite(norm):
            raise MgrpoError(
                f"the gradient of role {self.name!r} has norm {norm} at its update {self.policy.version + 1}; "
                "the adapter is as it was before.",
                hint=f"{_AGAIN}, or another objective.ratio or compute_dtype; {_SEEN}.",
            )
        return norm

    def refuse_diverged(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Require that a step has left the adapter and its moments finite, before anything of it is kept.

        Args:
            optimizer: Has stepped; the update is not counted yet.
            step: Training step, from 0.

        Raises:
            MgrpoError: It has not.
        """
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.policy.named_parameters().items():
            tensors[name] = parameter.detach()
            tensors |= {f"{key} of {name}": value for key, value in optimizer.state.get(parameter, {}).items()}
        if (found := first_nonfinite(tensors)) is not None:
            raise MgrpoError(
                f"role {self.name!r}: {found} is not finite after its update {self.policy.version + 1} in step {step}, "
                "which is not kept.",
                hint=f"{_AGAIN}, and optimizer.betas below 1; {_SEEN}.",
            )

    def learning_rate(self, max_steps: int) -> float:
        """Learning rate of the next update, by this role's own update count.

        Args:
            max_steps: Updates of the whole run.
        """
        return learning_rate(self.config.optimizer, self.policy.version, max_steps)
