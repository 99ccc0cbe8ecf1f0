"""TRL's own GRPO trainer, made by its own constructor, around a model too small to matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from tests.support.tiny import make_tiny_tokenizer

Trainer = Any  # GRPOTrainer, of which private methods are called and replaced


def make_trainer(
    folder: Path,
    config: ObjectiveConfig,
    *,
    loss_type: str,
    rows: int,
    micro_batches: int = 1,
    rollout: Any = None,
    **options: Any,
) -> Trainer:
    """A trainer with the objective of ``config``, as far as TRL has it, and ``loss_type`` for its reduction."""
    tokenizer = make_tiny_tokenizer()
    arguments = GRPOConfig(
        output_dir=str(folder),
        bf16=False,
        use_cpu=True,
        report_to=[],
        per_device_train_batch_size=rows // micro_batches,
        gradient_accumulation_steps=micro_batches,
        num_generations=2,
        importance_sampling_level=config.ratio,
        loss_type=loss_type,
        epsilon=config.clip_low,
        epsilon_high=config.clip_high,
        beta=config.kl,
        use_bias_correction_kl=False,
        **options,
    )
    model = LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, pad_token_id=tokenizer.pad_token_id)
    trainer: Trainer = GRPOTrainer(
        LlamaForCausalLM(model),
        reward_funcs=_rising,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * rows}),
        processing_class=tokenizer,
        peft_config=LoraConfig(target_modules=["q_proj"]),  # so that a reference is no second model on disk
        rollout_func=rollout,
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = micro_batches  # the training loop's to set
    return trainer


def answer(trainer: Trainer, logprobs: Tensor) -> None:
    """Make the trainer find these log-probabilities, rows x length, whatever it asks its model for."""
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None)


def _rising(completions: list[str], **_: object) -> list[float | None]:
    return [float(index) for index in range(len(completions))]
