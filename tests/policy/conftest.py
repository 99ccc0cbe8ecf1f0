"""A tiny model folder, and policies on freshly loaded bases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from mgrpo_lightning.policy.loading import Base, Quantization, load_base
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.roles.config import AdapterConfig, LimitsConfig, RoleConfig
from tests.support.tiny import make_tiny_model, make_tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    return make_tiny_tokenizer()


@pytest.fixture
def make_base(tiny_dir: Path) -> Callable[..., Base]:
    def make(quantization: Quantization = "none", dtype: torch.dtype = torch.float32) -> Base:
        return load_base(str(tiny_dir), quantization=quantization, compute_dtype=dtype)

    return make


@pytest.fixture
def make_policy(make_base: Callable[..., Base]) -> Callable[..., Policy]:
    """A policy whose adapter is not a no-op: B gets values too."""

    def make(
        role: str = "main",
        *,
        base: Base | None = None,
        adapter: AdapterConfig | None = None,
        scale: float = 0.1,
        context: int = 4096,
        **load: Any,
    ) -> Policy:
        base = base or make_base(**load)
        config = RoleConfig(
            base_model=base.name,
            adapter=adapter or AdapterConfig(rank=4, alpha=8),
            limits=LimitsConfig(context=context),
        )
        policy = Policy(role, config, base, seed=0)
        generator = torch.Generator().manual_seed(len(role))
        with torch.no_grad():
            for parameter in policy.named_parameters().values():
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
        return policy

    return make
