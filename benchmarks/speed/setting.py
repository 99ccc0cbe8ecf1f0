"""Shared setting of the speed benchmarks: model shapes with random weights, step sizes, prompts, LoRA, reward."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from mgrpo_lightning.roles.config import AdapterConfig
from tests.support.tiny import make_tiny_tokenizer

ADAPTER = AdapterConfig(rank=16, alpha=32)
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Shape:
    """A Llama."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocab: int


SHAPES = {
    "2M": Shape(hidden=192, layers=4, heads=3, kv_heads=3, inner=512, vocab=1792),
    "22M": Shape(hidden=384, layers=8, heads=6, kv_heads=2, inner=1024, vocab=16384),
    "135M": Shape(hidden=576, layers=30, heads=9, kv_heads=3, inner=1536, vocab=49152),
}
"""The smallest is the pocket model's shape, the largest SmolLM2-135M's."""


@dataclass(frozen=True)
class Step:
    """How much one GRPO step samples and trains; every prompt and every completion has just that many tokens."""

    queries: int
    rollouts: int
    prompt: int
    completion: int

    def texts(self, step: int) -> list[str]:
        """The prompts of a step: random digits, which are one token each.

        Args:
            step: Different steps have different prompts.
        """
        generator = torch.Generator().manual_seed(step)
        digits = torch.randint(0, 10, (self.queries, self.prompt), generator=generator)
        return ["".join(map(str, row)) for row in digits.tolist()]


def reward(ids: list[int]) -> float:
    """The mean id, in thousands: it costs nothing, and no completion has just the mean of its group.

    Args:
        ids: A completion.
    """
    return sum(ids) / len(ids) / 1000


def write_model(folder: Path, shape: Shape) -> None:
    """Write a model with random weights and a tokenizer, in which no token ends a turn.

    Args:
        folder: Where.
        shape: Of the model.
    """
    tokenizer = make_tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=shape.vocab,
                hidden_size=shape.hidden,
                intermediate_size=shape.inner,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.kv_heads,
                max_position_embeddings=8192,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
    model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
