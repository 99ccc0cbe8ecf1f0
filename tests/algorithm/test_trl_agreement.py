"""The objective's options against TRL's own loss, wherever TRL has the same option: loss and gradient, in float64.

``GRPOTrainer._compute_loss`` runs on a trainer that TRL's own constructor made; only what it asks its model for is
given. Both sides get the same log-probabilities, masks and advantages, and agree to 1e-12.

| option here | option of TRL |
|---|---|
| ratio ``token``, ``sequence`` | importance_sampling_level ``token``, ``sequence`` |
| reduction ``trajectory_mean`` | loss_type ``grpo``, where all coefficients are equal |
| reduction ``token_mean`` | loss_type ``bnpo``, and ``dapo`` in micro-batches, where all coefficients are equal |
| clip_low, clip_high | epsilon, epsilon_high |
| kl | beta, with use_bias_correction_kl off |
| correction_cap | vllm_importance_sampling_mode ``token_truncate`` |

TRL has no ratio as printed in the paper (``sequence_product``) and no unequal coefficients, and this trainer no
supervised kind: these are not compared. Its defaults ``sequence_mask`` and KL with bias correction are no options here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.algorithm.objective import surrogate_loss
from tests.algorithm.steps import REDUCTIONS

pytest.importorskip("trl", reason="TRL is in the extra `peers`")

from tests.algorithm.trl_trainer import Trainer, answer, make_trainer

# transformers says so of a field that TRL's own config sets
pytestmark = [
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You are using 'rollout_func':UserWarning"),
]

ROWS, LENGTH = 4, 7
LOSS_TYPES = {"trajectory_mean": "grpo", "token_mean": "bnpo"}
CONFIGS = [
    ObjectiveConfig(ratio=ratio, reduction=reduction, clip_low=low, clip_high=high, kl=kl)
    for ratio in ("token", "sequence")
    for reduction, (low, high), kl in itertools.product(REDUCTIONS, ((0.2, 0.28), (0.05, 0.4)), (0.0, 0.3))
]


@dataclass
class Shared:
    """What both losses get: log-probabilities, ROWS x LENGTH, with padding and a tool's result masked."""

    logprobs: Tensor
    behaviour: Tensor
    proximal: Tensor
    reference: Tensor
    padding_mask: Tensor
    tool_mask: Tensor
    advantages: Tensor

    @property
    def mask(self) -> Tensor:
        return (self.padding_mask * self.tool_mask).bool()

    def ours(self, config: ObjectiveConfig, **options: Any) -> Tensor:
        counts = self.mask.sum(1)
        coefficients = torch.full((ROWS,), 1 / ROWS, dtype=torch.float64)
        return surrogate_loss(
            self.logprobs[self.mask],
            self.behaviour[self.mask],
            torch.repeat_interleave(torch.arange(ROWS), counts),
            self.advantages,
            coefficients,
            config=config,
            batch_tokens=float((coefficients * counts).sum()),
            reference=self.reference[self.mask] if config.kl else None,
            **options,
        ).loss

    def theirs(self, trainer: Trainer, rows: slice = slice(None), **inputs: Tensor) -> Tensor:
        answer(trainer, self.logprobs[rows])
        given = {
            "prompt_ids": torch.zeros(ROWS, 1, dtype=torch.int64),
            "prompt_mask": torch.ones(ROWS, 1, dtype=torch.int64),
            "completion_ids": torch.zeros(ROWS, LENGTH, dtype=torch.int64),
            "completion_mask": self.padding_mask,
            "tool_mask": self.tool_mask,
            "advantages": self.advantages,
            "old_per_token_logps": self.behaviour,
            "ref_per_token_logps": self.reference,
        }
        batch = {name: value[rows] for name, value in (given | inputs).items()}
        loss = trainer._compute_loss(trainer.model, batch | {"num_items_in_batch": self.mask.sum()})
        assert isinstance(loss, Tensor)
        return loss

    def assert_equal(self, ours: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
        gradients = [torch.autograd.grad(loss, self.logprobs)[0] for loss in (ours, theirs)]
        assert gradients[0].any()
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def make_shared(seed: int) -> Shared:
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(ROWS, LENGTH, generator=generator, dtype=torch.float64)

    # float32 holds these exactly: it is the type in which both sides keep what a sampler stores
    behaviour = (-normal().abs() - 0.1).float().double()
    return Shared(
        logprobs=(behaviour + 0.4 * normal()).requires_grad_(),
        behaviour=behaviour,
        proximal=behaviour + 0.3 * normal(),
        reference=behaviour + 0.3 * normal(),
        padding_mask=(torch.arange(LENGTH) < torch.tensor([LENGTH, 3, 5, 1])[:, None]).long(),
        tool_mask=torch.tensor([[1, 1, 0, 0, 1, 1, 1], *[[1] * LENGTH] * (ROWS - 1)]),
        advantages=normal()[:, 0],
    )


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_loss_and_gradient_equal_those_of_trl(config: ObjectiveConfig, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, config, loss_type=LOSS_TYPES[config.reduction], rows=ROWS)
    for seed in range(3):
        shared = make_shared(seed)
        shared.assert_equal(shared.ours(config), shared.theirs(trainer))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_micro_batches_add_up_to_the_loss_of_the_step(reduction: str, tmp_path: Path) -> None:
    config = ObjectiveConfig(reduction=reduction)  # type: ignore[arg-type]
    loss_type = {"trajectory_mean": "grpo", "token_mean": "dapo"}[reduction]
    trainer = make_trainer(tmp_path, config, loss_type=loss_type, rows=ROWS, micro_batches=2)
    shared = make_shared(0)
    halves = [shared.theirs(trainer, rows) for rows in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS))]
    shared.assert_equal(shared.ours(config), halves[0] + halves[1])


def test_truncated_correction_equals_that_of_trl(tmp_path: Path) -> None:
    shared = make_shared(0)
    shared.tool_mask = torch.ones_like(shared.tool_mask)
    lengths = shared.padding_mask.sum(1).tolist()

    def rollout(prompts: list[str], _: object) -> dict[str, list[list[float]]]:
        """What an engine hands to TRL: ids, and the log-probabilities that it sampled with."""
        rows = zip(shared.behaviour.tolist(), lengths, strict=True)
        return {
            "prompt_ids": [[1]] * ROWS,
            "completion_ids": [[1] * length for length in lengths],
            "logprobs": [row[:length] for row, length in rows],
        }

    config = ObjectiveConfig(reduction="token_mean")
    cap = 1.1
    trainer = make_trainer(
        tmp_path,
        config,
        loss_type="bnpo",
        rows=ROWS,
        rollout=rollout,
        vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=cap,
    )
    trainer.use_vllm = True  # from here on as if an engine had been started
    trainer._last_loaded_step = trainer.state.global_step  # whose weights are the trainer's
    answer(trainer, shared.proximal)
    batch = trainer._generate_and_score_completions([{"prompt": "a"}] * ROWS)
    assert torch.equal(batch["old_per_token_logps"], shared.proximal)
    correction = batch["importance_sampling_ratio"]
    assert 0 < int((correction == cap)[shared.mask].sum()) < int(shared.mask.sum())
    shared.assert_equal(
        shared.ours(config, proximal=shared.proximal[shared.mask], correction_cap=cap),
        shared.theirs(trainer, old_per_token_logps=shared.proximal, importance_sampling_ratio=correction),
    )
