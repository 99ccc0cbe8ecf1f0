"""Update: forward and backward pass of one aligned batch, by micro-batches; KL reference, log ratios, loss metrics."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from mgrpo_lightning.policy.prefix_tree import PrefixTree
from mgrpo_lightning.records.batch import AlignedBatch, TrainingRow
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.roles.config import OptimizerConfig
from mgrpo_lightning.roles.minibatches import minibatch_of


class Update:
    """Forward and backward passes over one aligned batch; adds this rank's gradient to one role's adapter only.

    An update takes ``optimizer.steps_per_batch`` optimizer steps. Each call of ``finish`` completes the gradient of one
    of them; the caller then steps and sets the gradient to None. With more than one step, the log-probabilities under
    the adapter before the first one are computed once, ahead of its gradient, and kept.

    The loss of every micro-batch is already divided by the totals of the whole batch. So any split into micro-batches
    or ranks gives the same gradient, and the gradients of the minibatches, at one adapter, sum to that of the batch.
    Without a trainable token the gradient is None and not zero, because AdamW moves parameters on zero gradients.

    The constructor and ``finish`` communicate between ranks; ``advance`` does not.

    Args:
        policy: Policy of the role.
        batch: This rank's rows of the role; the coefficients of all ranks sum to 1.
        optimizer: The role's optimizer block, for the number of passes and minibatches.
        token_budget: Maximum number of tokens in one micro-batch; see ``split``.
        gradient_checkpointing: Recompute each layer in the backward pass; see ``recomputed_layers``.
    """

    def __init__(
        self,
        policy: Policy,
        objective: ObjectiveConfig,
        batch: AlignedBatch,
        optimizer: OptimizerConfig,
        *,
        token_budget: int,
        gradient_checkpointing: bool,
    ) -> None:
        self.batch = batch
        self._policy = policy
        self._objective = objective
        self._token_budget = token_budget
        self._gradient_checkpointing = gradient_checkpointing
        self._num_steps = optimizer.steps_per_batch
        self._finished = 0
        self._log_ratios: dict[tuple[Key, int], Tensor] = {}
        # n of each trajectory: its segments are rows of their own, and may be in different micro-batches.
        self._num_actions: Counter[Key] = Counter()
        for row in batch.rows:
            self._num_actions[row.key] += len(row.behaviour)
        # Counted before `_trainable` drops rows: a row without a gradient still counts in the token mean.
        own_tokens = sum(row.coefficient * len(row.behaviour) for row in batch.rows)
        (self._batch_tokens,) = over_ranks([own_tokens], policy.device)
        rows = self._trainable(batch.rows)
        self._minibatches: list[list[TrainingRow]] = [[] for _ in range(optimizer.minibatches)]
        for row in rows:
            self._minibatches[minibatch_of(row.key, optimizer.minibatches)].append(row)
        self._micro_batches = split(self._minibatches[0], token_budget)
        # With one step, the adapter before the update is the one that the gradient is computed with.
        self._proximal: dict[tuple[Key, int], Tensor] | None = None
        self._ahead: Iterator[tuple[list[TrainingRow], PrefixTree]] = iter(())
        if self._num_steps > 1 and objective.kind == "mgrpo":
            self._proximal, self._ahead = {}, split(rows, token_budget)
        self._sums: defaultdict[str, float] = defaultdict(float)

    @property
    def finished(self) -> bool:
        """Whether the gradients of all optimizer steps are computed."""
        return self._finished == self._num_steps

    @property
    def log_ratios(self) -> dict[Key, Tensor]:
        """Log rho of each sampled token, by trajectory that this rank computed, segment after segment.

        It is the log-probability under the adapter before the update minus the behaviour log-probability; float32 on
        the CPU, shape (n,). Empty in a warm start.
        """
        found: defaultdict[Key, list[Tensor]] = defaultdict(list)
        for key, segment in sorted(self._log_ratios):
            found[key].append(self._log_ratios[key, segment])
        return {key: torch.cat(parts) for key, parts in found.items()}

    def advance(self) -> bool:
        """Compute one more micro-batch of the next optimizer step; return whether there was one."""
        if (part := next(self._ahead, None)) is not None:
            self._keep(*part)
            return True
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
        self._add(output.sums)
        return True

    def finish(self) -> dict[str, float]:
        """Compute the remaining micro-batches of the next optimizer step.

        Returns:
            Metrics of the update so far, over all ranks: ``loss`` and ``trained_tokens`` of one pass, the token means
            ``mismatch`` (abs log rho against the behaviour policy before the update), ``clip_fraction`` and ``kl``, and
            the maximum ``mismatch_max``. Several passes give the mean.
        """
        assert not self.finished, "the update has no further optimizer step"
        while self.advance():
            pass
        self._finished += 1
        self._micro_batches = split(self._minibatches[self._finished % len(self._minibatches)], self._token_budget)
        passes = math.ceil(self._finished / len(self._minibatches))
        # A rank without rows takes part too: every rank must reach the same all-reduces.
        names = ("loss", "tokens", "clipped", "kl", "abs_log_ratio", "compared")
        sums = [self._sums[name] for name in names]
        loss, tokens, clipped, kl, mismatch, compared = over_ranks(sums, self._policy.device)
        (mismatch_max,) = over_ranks([self._sums["abs_log_ratio_max"]], self._policy.device, largest=True)
        count = max(tokens, 1.0)
        return {
            "loss": loss / passes,
            "trained_tokens": tokens / passes,
            "mismatch": mismatch / max(compared, 1.0),
            "mismatch_max": mismatch_max,
            "clip_fraction": clipped / count,
            "kl": kl / count,
        }

    def _keep(self, rows: Sequence[TrainingRow], prefix_tree: PrefixTree) -> None:
        """Compute and keep the log-probabilities of a micro-batch under the adapter before the update."""
        assert self._proximal is not None
        micro = collate(rows, prefix_tree, self._policy.device)
        with torch.no_grad(), self._policy.updating():
            logprobs = self._logprobs(micro)
        lengths = [len(row.behaviour) for row in rows]
        self._proximal |= {
            (row.key, row.segment): kept for row, kept in zip(rows, logprobs.split(lengths), strict=True)
        }
        self._compare(rows, logprobs, micro.behaviour)

    def _trainable(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """Rows that can change the adapter: without a KL term, a row with advantage 0 has no gradient."""
        if self._objective.kl > 0 or self._objective.kind == "supervised":
            return list(rows)
        return [row for row in rows if row.advantage != 0]

    def _loss(self, micro: MicroBatch, rows: Sequence[TrainingRow], reference: Tensor | None) -> LossOutput:
        logprobs = self._logprobs(micro)
        if self._proximal is not None:
            proximal = torch.cat([self._proximal[row.key, row.segment] for row in rows])
        else:
            # The adapter before the update is the current one, because the batch is used for one step only.
            proximal = logprobs.detach()
            if self._objective.kind == "mgrpo":
                self._compare(rows, proximal, micro.behaviour)
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
            proximal=None if correction == "ratio" else proximal,
            reference=reference,
            correction_cap=self._objective.correction_cap if correction == "truncated" else None,
        )

    def _compare(self, rows: Sequence[TrainingRow], logprobs: Tensor, behaviour: Tensor) -> None:
        """Add the distance of the policy before the update from the sampler's log-probabilities, shape (N,)."""
        ratios = logprobs - behaviour
        parts = ratios.float().cpu().split([len(row.behaviour) for row in rows])
        self._log_ratios |= {(row.key, row.segment): part for row, part in zip(rows, parts, strict=True)}
        gaps = ratios.double().abs()
        self._add(
            {
                "abs_log_ratio": float(gaps.sum()),
                "abs_log_ratio_max": float(gaps.max()),
                "compared": float(len(gaps)),
            }
        )

    def _add(self, sums: Mapping[str, float]) -> None:
        for name, value in sums.items():
            self._sums[name] = max(self._sums[name], value) if name.endswith("_max") else self._sums[name] + value

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
