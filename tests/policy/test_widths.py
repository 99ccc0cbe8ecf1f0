"""The memory plan reads sizes off any architecture: what is cached and counted is what a real model has."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from mgrpo_lightning.policy.lm_head import hidden_states
from mgrpo_lightning.policy.memory import plan
from mgrpo_lightning.policy.sampling.row_cache import RowCache
from mgrpo_lightning.policy.supported import empty_model
from mgrpo_lightning.policy.widths import bytes_per_token, widths
from mgrpo_lightning.roles.config import AdapterConfig, LimitsConfig, RoleConfig
from tests.policy.architectures import CONTEXTS, SUITE, linear_layers, tiny_config
from tests.policy.walk import PAGE, documented

WORKING = [kind for kind, (_, verdict, _) in documented(PAGE.read_text("utf-8")).items() if verdict == "works"]
UNSEEN = {"jetmoe", "longcat_flash"}
"""Their experts look at the router's numbers: what they cache is not seen without weights, and bounded instead."""


def cached_numbers(config: PreTrainedConfig) -> int:
    """Of one token, in a real pass."""
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    cache = RowCache(torch.float32, torch.device("cpu"))
    cache.reserve(1, 64)
    positions, mask = cache.begin(range(1), torch.zeros(1, dtype=torch.int64), 3)
    with torch.no_grad():
        hidden_states(
            model,
            torch.ones(1, 3, dtype=torch.int64),
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
    return sum(store.numel() for pair in cache._stores for store in pair) // cache.capacity


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in SUITE else pytest.mark.slow) for kind in WORKING]
)
def test_every_architecture_has_a_memory_plan(tmp_path: Path, kind: str) -> None:
    config = tiny_config(kind)
    config.save_pretrained(tmp_path)
    model = empty_model(config)
    targets = linear_layers(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    limits = LimitsConfig(context=CONTEXTS[-1])
    role = RoleConfig(str(tmp_path), adapter=AdapterConfig(rank=4, target_modules=targets), limits=limits)
    for on_gpu in (False, True):
        memory = plan(
            {"main": role},
            quantization="none",
            compute_dtype=torch.bfloat16,
            dense_copy=True,
            token_budget=100,
            gradient_checkpointing=on_gpu,
            conversations={"main": 3},
            on_gpu=on_gpu,
        )
        assert all(math.isfinite(figure) and figure > 0 for figure in asdict(memory).values())
        assert memory.base == 2 * parameters
        assert memory.cache == 2 * 3 * CONTEXTS[-1] * widths(empty_model(config)).cached
    real = cached_numbers(config)
    found = bytes_per_token(config, torch.float32) // 4
    assert found >= real if kind in UNSEEN else found == real


def test_sizes_are_read_off_modules_whatever_the_config_calls_them() -> None:
    """Hidden size 32, 4 heads of 8, inner size 32, two layers: in GPT-NeoX's MLP no gate, and queries fused."""
    llama = widths(empty_model(tiny_config("llama", num_key_value_heads=2)))
    assert llama.layers == (4 * 32 + 8 * (3 * 4 + 2 * 2) + 4 * 32,) * 2
    assert (llama.hidden, llama.queries, llama.keys, llama.cached) == (32, 32, 16, 64)
    neox = widths(empty_model(tiny_config("gpt_neox")))
    assert neox.layers == (4 * 32 + 8 * 5 * 4 + 3 * 32,) * 2
    assert (neox.queries, neox.keys, neox.cached) == (32, 32, 128)


def test_experts_keep_as_many_as_a_token_goes_to() -> None:
    dense, sparse = (
        widths(empty_model(tiny_config(kind, head_dim=8, num_key_value_heads=4))) for kind in ("qwen3", "qwen3_moe")
    )
    inner = tiny_config("qwen3_moe").moe_intermediate_size
    assert sparse.layers[0] - dense.layers[0] == 2 * 4 * inner - 4 * 32


def test_a_compressed_cache_is_counted_as_it_is() -> None:
    """DeepSeek caches what keys and values are made from, not them."""
    config = tiny_config("deepseek_v3")
    assert bytes_per_token(config, torch.float32) == 4 * cached_numbers(config)
