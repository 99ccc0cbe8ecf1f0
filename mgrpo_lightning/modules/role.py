"""RoleModule: the LightningModule of one role. It turns an aligned batch into gradients of the role's adapter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mgrpo_lightning.algorithm.objective import LossOutput, surrogate_loss
from mgrpo_lightning.data.batch import AlignedBatch, Row
from mgrpo_lightning.modules.microbatch import MicroBatch, collate, split
from mgrpo_lightning.modules.schedule import learning_rate
from mgrpo_lightning.policy.logprobs import forest_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.recompute import recomputed_layers
from mgrpo_lightning.ranks import add_up_gradients, over_ranks
from mgrpo_lightning.roles import RoleConfig


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

    def update(self, batch: AlignedBatch) -> dict[str, float]:
        """Forward and backward over one aligned batch; adds to the gradients of this role's adapter only.

        The loss of every micro-batch is already divided by what the whole step contains, so any split, and any number
        of ranks, gives the same gradient. A role without a trainable token gets no gradient at all: None, not zero, as
        AdamW moves on zeros.

        Args:
            batch: This rank's rows of the role in one optimizer step; coefficients of all ranks' add up to 1.

        Returns:
            Of all ranks: ``loss``, ``trained_tokens``, means over these of ``mismatch`` (abs log rho against the
            behaviour policy), ``clip_fraction`` and ``kl``, and ``mismatch_max``.
        """
        own_tokens = sum(row.coefficient * len(row.behaviour) for row in batch.rows)
        (batch_tokens,) = over_ranks([own_tokens], self.policy.device)
        sums: defaultdict[str, float] = defaultdict(float)
        layers = recomputed_layers(self.policy.base.model) if self.gradient_checkpointing else nullcontext()
        with self.policy.updating(), layers:
            for group in split(self._trainable(batch.rows), self.token_budget):
                output = self._loss(collate(group, self.policy.device), batch_tokens)
                output.loss.backward()
                sums["loss"] += float(output.loss.detach())
                for name, value in output.sums.items():
                    sums[name] = max(sums[name], value) if name.endswith("_max") else sums[name] + value
        add_up_gradients(list(self.policy.named_parameters().values()))
        names = ("loss", "tokens", "abs_log_ratio", "clipped", "kl")
        loss, tokens, mismatch, clipped, kl = over_ranks([sums[name] for name in names], self.policy.device)
        (mismatch_max,) = over_ranks([sums["abs_log_ratio_max"]], self.policy.device, largest=True)
        count = max(tokens, 1.0)
        return {
            "loss": loss,
            "trained_tokens": tokens,
            "mismatch": mismatch / count,
            "mismatch_max": mismatch_max,
            "clip_fraction": clipped / count,
            "kl": kl / count,
        }

    def clip(self) -> float:
        """Scale this role's gradient to its own bound; the norm before that (correctness.md 36)."""
        parameters = [p for p in self.policy.named_parameters().values() if p.grad is not None]
        return float(torch.nn.utils.clip_grad_norm_(parameters, self.config.optimizer.clip_norm)) if parameters else 0.0

    def learning_rate(self, max_steps: int) -> float:
        """Learning rate of the next update, by this role's own update count.

        Args:
            max_steps: Updates of the whole run.
        """
        return learning_rate(self.config.optimizer, self.policy.version, max_steps)

    def _trainable(self, rows: Sequence[Row]) -> list[Row]:
        """Rows that can move the adapter: without a KL term, a zero advantage has a zero gradient, so it is skipped."""
        if self.config.objective.kl > 0 or self.config.objective.kind == "supervised":
            return list(rows)
        return [row for row in rows if row.advantage != 0]

    def _loss(self, micro: MicroBatch, batch_tokens: float) -> LossOutput:
        # first, as the backward pass of checkpointed layers needs the role's own adapter to be the selected one
        reference = self._reference_logprobs(micro)
        return surrogate_loss(
            self._logprobs(micro),
            micro.behaviour,
            micro.rows,
            micro.advantages,
            micro.coefficients,
            config=self.config.objective,
            batch_tokens=batch_tokens,
            reference=reference,
        )

    def _logprobs(self, micro: MicroBatch) -> Tensor:
        """Under whatever adapter is selected; greedy turns store the log-probabilities of temperature 1."""
        logprobs = forest_logprobs(
            self.policy.base.model, micro.forest, micro.scored, temperature=micro.temperature or 1.0
        )
        return logprobs[micro.places]

    def _reference_logprobs(self, micro: MicroBatch) -> Tensor | None:
        if self.config.objective.kl == 0:
            return None
        with torch.no_grad(), self.policy.reference():
            return self._logprobs(micro)
