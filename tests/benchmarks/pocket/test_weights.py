"""The shipped weights: small, plain, still able to copy, and as good through NF4 as without."""

import pytest
import torch

from benchmarks.pocket.build import WEIGHTS
from benchmarks.pocket.demonstrations import TEAM, encode, packaged_roles, play
from benchmarks.pocket.evaluation import copied, told_right
from benchmarks.pocket.pretraining import Document
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.loading import Base, Quantization, load_base
from mgrpo_lightning.tasks.factbook import Factbook


def pocket(quantization: Quantization) -> Base:
    return load_base("pocket", quantization=quantization, compute_dtype=torch.float32)


@pytest.fixture(scope="module")
def held_out_play() -> list[Document]:
    """Demonstrations on validation countries, which the model has never seen."""
    task = Factbook(hops=[1, 2])
    chat = Chat(pocket("none").tokenizer)
    return [
        encode(t, chat) for t in play(task, task.questions("validation")[:24], chat, packaged_roles(TEAM)) if t.right
    ]


def test_size_and_shape() -> None:
    base = pocket("none")
    assert 1e6 <= sum(parameter.numel() for parameter in base.model.parameters()) <= 3e6
    assert base.model.config.model_type == "llama"
    assert base.model.config.vocab_size == len(base.tokenizer)
    files = sum(path.stat().st_size for path in WEIGHTS.iterdir())
    assert files < 8_000_000


def test_it_copies_random_strings() -> None:
    assert copied(pocket("none").model, length=30) >= 0.9


def test_nf4_keeps_the_skill(held_out_play: list[Document]) -> None:
    plain, quantised = pocket("none"), pocket("nf4")
    assert "Linear4bit" in {type(module).__name__ for module in quantised.model.modules()}
    right, _ = told_right(plain.model, held_out_play)
    assert right > 0.95
    assert told_right(quantised.model, held_out_play)[0] > right - 0.02
