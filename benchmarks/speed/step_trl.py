"""Timed GRPO steps of TRL's ``GRPOTrainer``, in a child process of ``benchmarks.speed.trl``.

No token ends a completion: the model has none that does, and the trainer is told of none. So both sides sample the same
number of tokens, and TRL is spared the logits processor that forced lengths would cost it.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import warnings
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from typing_extensions import override

from benchmarks.speed.fresh import Clock, PeakMemory, report
from benchmarks.speed.setting import ADAPTER, LEARNING_RATE, Step, reward


class Steps(TrainerCallback):
    """Times whole steps, the first of which is the warm-up.

    Args:
        clock: Of the parts; it is set to zero after the warm-up.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._part: Any = None

    @override
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            self.clock.reset()
        self._part = self.clock.part("step")
        self._part.__enter__()

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._part.__exit__(None, None, None)


def rewards(completion_ids: list[list[int]], **_: object) -> list[float | None]:
    """What TRL asks for rewards.

    Args:
        completion_ids: Of a batch.
    """
    return [reward(ids) for ids in completion_ids]


def make_trainer(folder: str, step: Step, steps: int, output: str, options: dict[str, Any]) -> Any:
    """TRL's trainer on our setting.

    Args:
        folder: The model's.
        step: What a step samples.
        steps: How many there will be.
        output: Where it may write.
        options: Of GRPOConfig, on top of what the setting fixes; ``rows`` is the size of a micro-batch, ``dtype``
            the type of the weights.
    """
    rows = options.pop("rows")
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, options.pop("dtype")), trust_remote_code=False, use_safetensors=True
    )
    config = GRPOConfig(
        output_dir=output,
        use_cpu=True,
        bf16=options.pop("bf16", False),
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        shuffle_dataset=False,
        max_steps=steps,
        learning_rate=LEARNING_RATE,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=step.queries * step.rollouts // rows,
        num_generations=step.rollouts,
        max_completion_length=step.completion,
        generation_kwargs={"eos_token_id": None, **options.pop("generation_kwargs", {})},
        **options,
    )
    trainer: Any = GRPOTrainer(
        model,
        reward_funcs=rewards,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [text for number in range(steps) for text in step.texts(number)]}),
        processing_class=AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        peft_config=LoraConfig(
            r=ADAPTER.rank, lora_alpha=ADAPTER.alpha, target_modules=ADAPTER.target_modules, task_type="CAUSAL_LM"
        ),
    )
    trainer.eos_token_ids = [-1]
    with torch.no_grad():
        trainer.model(input_ids=torch.ones(1, 4, dtype=torch.int64))  # weights are mapped from the file until touched
    return trainer


def main() -> None:
    """Warm up, measure, report."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    arguments = json.loads(sys.argv[1])
    step = Step(**arguments["step"])
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        trainer = make_trainer(arguments["folder"], step, 1 + arguments["steps"], output, arguments["options"])
        generate, score = trainer._generate_single_turn, trainer._generate_and_score_completions
        sampled = []

        def timed_generate(*inputs: Any, **options: Any) -> Any:
            with clock.part("generation"):
                found = generate(*inputs, **options)
            sampled.append({len(ids) for ids in found[0]})
            return found

        def timed_score(*inputs: Any) -> Any:
            with clock.part("generation and scoring"):
                return score(*inputs)

        trainer._generate_single_turn, trainer._generate_and_score_completions = timed_generate, timed_score
        trainer.add_callback(Steps(clock))
        gc.collect()
        memory = PeakMemory()
        trainer.train()
        peak = memory.rise()
    assert sampled == [{step.completion}] * (1 + arguments["steps"]), f"other lengths were sampled: {sampled}"
    steps = arguments["steps"]
    seconds = {name: value / steps for name, value in clock.seconds.items()}
    both = seconds.pop("generation and scoring")
    seconds["scoring"] = both - seconds["generation"]
    seconds["update"] = seconds["step"] - both
    report({"seconds": seconds, "cpu": clock.cpu["step"] / steps, "peak": peak})


if __name__ == "__main__":
    main()
