"""Timed GRPO steps through this package's sampler and modules, in a child process of ``benchmarks.speed.trl``.

The sampler, the scheduler, alignment and the modules are those of a training run. Left out is what one turn of fixed
length does not have: agents, tools, the journal.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from typing import Literal

import torch

from benchmarks.speed.fresh import Clock, PeakMemory, report
from benchmarks.speed.setting import ADAPTER, LEARNING_RATE, Step, reward
from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.data.aligned_batches import align_role
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.policy.sampling.base import Conversation, SamplingParams
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Score, Segment, Span, Trajectory
from mgrpo_lightning.roles.config import LimitsConfig, OptimizerConfig, RoleConfig


class Trainer:
    """One role on its base.

    Args:
        folder: The model's.
        step: What a step samples.
        token_budget: Of a micro-batch.
        dtype: Of the base and its products.
        dense_copy: Whether to sample from and update with a dense copy.
        gradient_checkpointing: Whether to compute layers again in the backward pass.
    """

    def __init__(
        self,
        folder: str,
        step: Step,
        *,
        token_budget: int,
        dtype: Literal["float32", "bfloat16"],
        dense_copy: bool,
        gradient_checkpointing: bool,
    ) -> None:
        role = RoleConfig(
            base_model=folder,
            adapter=ADAPTER,
            limits=LimitsConfig(new_tokens=step.completion, context=step.prompt + step.completion),
            optimizer=OptimizerConfig(lr=LEARNING_RATE),
        )
        self.module = TeamModule(
            {"main": role},
            quantization="none",
            compute_dtype=dtype,
            token_budget=token_budget,
            dense_copy=dense_copy,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.module.configure_model()
        self.policy = self.module.policies["main"]
        self.optimizer = self.module.configure_optimizers()
        self.scheduler = Scheduler("eager")
        self.sampler = TransformersSampler(self.policy, self.scheduler)
        self._step = step

    def step(self, number: int, clock: Clock) -> None:
        """One whole step.

        Args:
            number: Of the step.
            clock: Times its parts.
        """
        with clock.part("generation"):
            groups = self._play(number)
        with clock.part("scoring"):
            for group in groups:
                for rollout in group.rollouts:
                    rollout.scores[0] = Score(format=0.0, total=reward(list(rollout.main.spans[-1].ids)))
            config = self.module.roles["main"].objective
            aligned = align_role(groups, "main", config, AlignmentConfig(), seed=0, step=number)
        with clock.part("update"):
            role = self.module.role_module("main")
            figures = role.update(aligned)
            role.clip()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.policy.version += 1
        trained = self._step.queries * self._step.rollouts * self._step.completion
        assert figures["trained_tokens"] == trained, f"{figures['trained_tokens']} tokens, not {trained}"

    def _play(self, number: int) -> list[Group]:
        texts = self._step.texts(number)
        prompts = [self.policy.base.tokenizer(text)["input_ids"] for text in texts]
        assert all(len(prompt) == self._step.prompt for prompt in prompts)
        turns = [
            self._turn(conversation, prompt, Key(number, query, k, 0))
            for query, prompt in enumerate(prompts)
            for k, conversation in enumerate(self.sampler.open(prompt, (query,)).fork(self._step.rollouts))
        ]
        played = self.scheduler.play(turns)
        size = self._step.rollouts
        return [
            Group(Question(str(query), text, ()), played[query * size : (query + 1) * size])
            for query, text in enumerate(texts)
        ]

    async def _turn(self, conversation: Conversation, prompt: Sequence[int], key: Key) -> Rollout:
        params = SamplingParams(max_new_tokens=self._step.completion, stop_ids=())
        turn = await conversation.sample(params, stream_of(*key))
        conversation.close()
        spans = [Span("observation", tuple(prompt)), Span("action", turn.ids, turn.logprobs, turn.version)]
        return Rollout(Trajectory("main", key, "", segments=[Segment(spans)]))


def main() -> None:
    """Warm up, measure, report."""
    arguments = json.loads(sys.argv[1])
    torch.manual_seed(0)
    step = Step(**arguments["step"])
    trainer = Trainer(arguments["folder"], step, **arguments["options"])
    gc.collect()
    memory = PeakMemory()
    clock = Clock()
    for number in range(1 + arguments["steps"]):
        if number == 1:
            clock.reset()
        with clock.part("step"):
            trainer.step(number, clock)
    steps = arguments["steps"]
    seconds = {name: value / steps for name, value in clock.seconds.items()}
    report({"seconds": seconds, "cpu": clock.cpu["step"] / steps, "peak": memory.rise()})


if __name__ == "__main__":
    main()
