"""Update: forward and backward pass of one aligned batch, by micro-batches; KL reference, log ratios, loss metrics."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.algorithm.objective import LossOutput, surrogate_loss
from mgrpo_lightning.distributed.ranks import over_ranks
from mgrpo_lightning.modules.microbatch import MicroBatch, collate, split
from mgrpo_lightning.policy.gradient_checkpointing import recomputed_layers
from mgrpo_lightning.policy.logprobs import prefix_tree_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.records.batch import AlignedBatch, TrainingRow
from mgrpo_lightning.records.trajectory import Key


class Update:
    """Forward and backward pass over one aligned batch; adds this rank's gradient to one role's adapter only.

    The loss of every micro-batch is already divided by the totals of the whole step. So any split into micro-batches or
    ranks gives the same gradient. A role without a trainable token gets the gradient None and not zero, because AdamW
    moves parameters on zero gradients.

    The constructor and ``finish`` communicate between ranks; ``advance`` does not.

    Args:
        policy: Policy of the role.
        batch: This rank's rows of the role in one optimizer step; the coefficients of all ranks sum to 1.
        token_budget: Maximum number of tokens in one micro-batch; see ``split``.
        gradient_checkpointing: Recompute each layer in the backward pass; see ``recomputed_layers``.
    """

    def __init__(
        self,
        policy: Policy,
        objective: ObjectiveConfig,
        batch: AlignedBatch,
        *,
        token_budget: int,
        gradient_checkpointing: bool,
    ) -> None:
        self.batch = batch
        self._policy = policy
        self._objective = objective
        self._gradient_checkpointing = gradient_checkpointing
        self._log_ratios: dict[tuple[Key, int], Tensor] = {}
        # n of each trajectory: its segments are rows of their own, and may be in different micro-batches.
        self._num_actions: Counter[Key] = Counter()
        for row in batch.rows:
            self._num_actions[row.key] += len(row.behaviour)
        # Counted before `_trainable` drops rows: a row without a gradient still counts in the token mean.
        own_tokens = sum(row.coefficient * len(row.behaviour) for row in batch.rows)
        (self._batch_tokens,) = over_ranks([own_tokens], policy.device)
        self._micro_batches = split(self._trainable(batch.rows), token_budget)
        self._sums: defaultdict[str, float] = defaultdict(float)

    @property
    def log_ratios(self) -> dict[Key, Tensor]:
        """Log rho of each sampled token, by trajectory that this rank computed, segment after segment.

        It is the log-probability under the adapter before the step minus the behaviour log-probability; float32 on the
        CPU, shape (n,). Empty in a warm start.
        """
        found: defaultdict[Key, list[Tensor]] = defaultdict(list)
        for key, segment in sorted(self._log_ratios):
            found[key].append(self._log_ratios[key, segment])
        return {key: torch.cat(parts) for key, parts in found.items()}

    def advance(self) -> bool:
        """Compute one more micro-batch; return whether there was one."""
        if (part := next(self._micro_batches, None)) is None:
            return False
        rows, prefix_tree = part
        model = self._policy.base.model
        micro = collate(rows, prefix_tree, self._policy.device)
        # Outside `updating`: the first call may create the reference adapter on the base model's layers.
        reference = self._reference_logprobs(micro)
        with self._policy.updating(), recomputed_layers(model) if self._gradient_checkpointing else nullcontext():
            output = self._loss(micro, rows, reference)
            output.loss.backward()
        self._sums["loss"] += float(output.loss.detach())
        for name, value in output.sums.items():
            self._sums[name] = max(self._sums[name], value) if name.endswith("_max") else self._sums[name] + value
        return True

    def finish(self) -> dict[str, float]:
        """Compute the remaining micro-batches.

        Returns:
            Metrics over all ranks: ``loss``, ``trained_tokens``, the token means ``mismatch`` (abs log rho against the
            behaviour policy), ``clip_fraction`` and ``kl``, and the maximum ``mismatch_max``.
        """
        while self.advance():
            pass
        # A rank without rows takes part too: every rank must reach the same all-reduces.
        names = ("loss", "tokens", "abs_log_ratio", "clipped", "kl")
        loss, tokens, mismatch, clipped, kl = over_ranks([self._sums[name] for name in names], self._policy.device)
        (mismatch_max,) = over_ranks([self._sums["abs_log_ratio_max"]], self._policy.device, largest=True)
        count = max(tokens, 1.0)
        return {
            "loss": loss,
            "trained_tokens": tokens,
            "mismatch": mismatch / count,
            "mismatch_max": mismatch_max,
            "clip_fraction": clipped / count,
            "kl": kl / count,
        }

    def _trainable(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """Rows that can change the adapter: without a KL term, a row with advantage 0 has no gradient."""
        if self._objective.kl > 0 or self._objective.kind == "supervised":
            return list(rows)
        return [row for row in rows if row.advantage != 0]

    def _loss(self, micro: MicroBatch, rows: Sequence[TrainingRow], reference: Tensor | None) -> LossOutput:
        logprobs = self._logprobs(micro)
        if self._objective.kind == "mgrpo":
            ratios = (logprobs.detach() - micro.behaviour).float().cpu().split([len(row.behaviour) for row in rows])
            self._log_ratios |= {(row.key, row.segment): ratio for row, ratio in zip(rows, ratios, strict=True)}
        correction = self._objective.correction
        return surrogate_loss(
            logprobs,
            micro.behaviour,
            micro.rows,
            micro.advantages,
            micro.coefficients,
            config=self._objective,
            batch_tokens=self._batch_tokens,
            num_actions=torch.tensor([self._num_actions[row.key] for row in rows], device=logprobs.device),
            # The adapter before the step is the current one, because each batch is used for one update only.
            proximal=None if correction == "ratio" else logprobs.detach(),
            reference=reference,
            correction_cap=self._objective.correction_cap if correction == "truncated" else None,
        )

    def _logprobs(self, micro: MicroBatch) -> Tensor:
        """Log-probabilities under the selected adapter.

        Greedy turns (temperature 0) store log-probabilities of temperature 1, so these are computed at 1 too.
        """
        logprobs = prefix_tree_logprobs(
            self._policy.base.model, micro.prefix_tree, micro.scored, temperature=micro.temperature or 1.0
        )
        # Maps U distinct tree positions back to the N sampled tokens. The backward pass of the indexing sums their
        # gradients.
        return logprobs[micro.places]

    def _reference_logprobs(self, micro: MicroBatch) -> Tensor | None:
        if self._objective.kl == 0:
            return None
        with torch.no_grad(), self._policy.reference():
            return self._logprobs(micro)
