"""Update: the gradient of one aligned batch, one micro-batch at a time, so that other work can be done in between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.algorithm.objective import LossOutput, surrogate_loss
from mgrpo_lightning.distributed.ranks import over_ranks
from mgrpo_lightning.modules.microbatch import MicroBatch, collate, split
from mgrpo_lightning.policy.logprobs import forest_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.recompute import recomputed_layers
from mgrpo_lightning.records.batch import AlignedBatch, Row
from mgrpo_lightning.records.trajectory import Key


class Update:
    """Forward and backward over one aligned batch; adds this rank's share to the gradients of one role's adapter only.

    The loss of every micro-batch is already divided by what the whole step contains, so any split, and any number of
    ranks, gives the same gradient. A role without a trainable token gets no gradient at all: None, not zero, as AdamW
    moves on zeros.

    Ranks meet when it is made and when it is finished, and nowhere between.

    Args:
        policy: Of the role.
        objective: What is minimised.
        batch: This rank's rows of the role in one optimizer step; coefficients of all ranks' add up to 1.
        token_budget: Bound on the tokens of one micro-batch; see ``split``.
        gradient_checkpointing: Compute each layer again in the backward pass; see ``recomputed_layers``.
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
        self.log_ratios: dict[Key, Tensor] = {}
        """Of the trajectories that this rank has computed: log-probability of each sampled id under the adapter before
        the step, less that with which it was sampled; float32 on the CPU, shape (n,). Empty in a warm start."""
        self._policy = policy
        self._objective = objective
        self._gradient_checkpointing = gradient_checkpointing
        own_tokens = sum(row.coefficient * len(row.behaviour) for row in batch.rows)
        (self._batch_tokens,) = over_ranks([own_tokens], policy.device)
        self._micro_batches = split(self._trainable(batch.rows), token_budget)
        self._sums: defaultdict[str, float] = defaultdict(float)

    def advance(self) -> bool:
        """Compute one more micro-batch; whether there was one."""
        rows = next(self._micro_batches, None)
        if rows is None:
            return False
        model = self._policy.base.model
        micro = collate(rows, self._policy.device)
        reference = self._reference_logprobs(micro)  # its adapter may have to be made, on the base's own layers
        with self._policy.updating(), recomputed_layers(model) if self._gradient_checkpointing else nullcontext():
            output = self._loss(micro, rows, reference)
            output.loss.backward()
        self._sums["loss"] += float(output.loss.detach())
        for name, value in output.sums.items():
            self._sums[name] = max(self._sums[name], value) if name.endswith("_max") else self._sums[name] + value
        return True

    def finish(self) -> dict[str, float]:
        """Compute what is left.

        Returns:
            Of all ranks: ``loss``, ``trained_tokens``, means over these of ``mismatch`` (abs log rho against the
            behaviour policy), ``clip_fraction`` and ``kl``, and ``mismatch_max``.
        """
        while self.advance():
            pass
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

    def _trainable(self, rows: Sequence[Row]) -> list[Row]:
        """Rows that can move the adapter: without a KL term, a zero advantage has a zero gradient, so it is skipped."""
        if self._objective.kl > 0 or self._objective.kind == "supervised":
            return list(rows)
        return [row for row in rows if row.advantage != 0]

    def _loss(self, micro: MicroBatch, rows: Sequence[Row], reference: Tensor | None) -> LossOutput:
        logprobs = self._logprobs(micro)
        if self._objective.kind == "mgrpo":
            ratios = (logprobs.detach() - micro.behaviour).float().cpu().split([len(row.behaviour) for row in rows])
            self.log_ratios |= {row.key: ratio for row, ratio in zip(rows, ratios, strict=True)}
        correction = self._objective.correction
        return surrogate_loss(
            logprobs,
            micro.behaviour,
            micro.rows,
            micro.advantages,
            micro.coefficients,
            config=self._objective,
            batch_tokens=self._batch_tokens,
            proximal=None if correction == "ratio" else logprobs.detach(),  # a batch has one update
            reference=reference,
            correction_cap=self._objective.correction_cap if correction == "truncated" else None,
        )

    def _logprobs(self, micro: MicroBatch) -> Tensor:
        """Under whatever adapter is selected; greedy turns store the log-probabilities of temperature 1."""
        logprobs = forest_logprobs(
            self._policy.base.model, micro.forest, micro.scored, temperature=micro.temperature or 1.0
        )
        return logprobs[micro.places]

    def _reference_logprobs(self, micro: MicroBatch) -> Tensor | None:
        if self._objective.kl == 0:
            return None
        with torch.no_grad(), self._policy.reference():
            return self._logprobs(micro)
