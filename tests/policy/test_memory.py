"""The memory plan's parts against what is really allocated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.cpu.dense import _DenseLinear
from mgrpo_lightning.policy.loading import Base, load_base
from mgrpo_lightning.policy.logprobs import LOGITS, action_logprobs
from mgrpo_lightning.policy.memory import HOLES, MemoryPlan, adapter_parameters, meta_model, plan
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.row_cache import RowCache
from mgrpo_lightning.roles.config import AdapterConfig, LimitsConfig, RoleConfig
from tests.support.tiny import make_tiny_tokenizer


def planned(
    role: RoleConfig,
    *,
    quantization: str = "nf4",
    width: torch.dtype = torch.float32,
    dense_copy: bool = False,
    on_gpu: bool = False,
) -> MemoryPlan:
    return plan(
        {"main": role},
        quantization=quantization,  # type: ignore[arg-type]
        compute_dtype=width,
        dense_copy=dense_copy,
        token_budget=1000,
        gradient_checkpointing=False,
        conversations={"main": 6},
        on_gpu=on_gpu,
    )


@pytest.mark.parametrize(("quantization", "dtype"), [("nf4", torch.float32), ("none", torch.bfloat16)])
def test_base_and_adapters_are_as_large_as_planned(quantization: str, dtype: torch.dtype) -> None:
    role = RoleConfig("pocket", adapter=AdapterConfig(rank=5, target_modules=["q_proj", "down_proj"]))
    memory = planned(role, quantization=quantization, width=dtype)
    base = load_base("pocket", quantization=quantization, compute_dtype=dtype)  # type: ignore[arg-type]
    weights = list(base.model.parameters())
    states = [p.quant_state for p in weights if hasattr(p, "quant_state")]
    # The last scales and the codes of each layer are a constant few KiB.
    scales = sum(state.absmax.nbytes + state.state2.absmax.nbytes for state in states)
    assert memory.base == pytest.approx(sum(p.nbytes for p in weights) + scales, rel=2e-3)
    policy = Policy("main", role, base, seed=0)
    count = sum(p.numel() for p in policy.named_parameters().values())
    assert adapter_parameters(meta_model("pocket"), role.adapter) == count
    assert memory.adapters == (4 if dtype == torch.float32 else 4 + 2) * count
    assert memory.optimizer == 12 * count
    assert planned(replace(role, trainable=False)).optimizer == 0


def test_the_cache_is_as_large_as_planned(make_base: Callable[..., Base]) -> None:
    base = make_base()
    role = RoleConfig(base.name, limits=LimitsConfig(context=128))
    cache = RowCache(torch.float32, torch.device("cpu"))
    cache.reserve(6, 128)
    cache.begin(range(6), torch.zeros(6, dtype=torch.int64), 3)
    base.model(torch.ones(6, 3, dtype=torch.int64), past_key_values=cache, use_cache=True)
    assert planned(role).cache == sum(store.nbytes for pair in cache._stores for store in pair)


def test_the_dense_copy_is_as_large_as_planned() -> None:
    """The copies and, once sampled from on a CPU, the packed ones with the head's."""
    role = RoleConfig("pocket")
    base = load_base("pocket", quantization="nf4", compute_dtype=torch.float32, dense_copy=True)
    policy = Policy("main", role, base, seed=0)
    with policy.sampling(), torch.no_grad():
        base.model(torch.ones(1, 3, dtype=torch.int64))
        layers = [layer for layer in base.model.modules() if isinstance(layer, _DenseLinear)]
        own = base.model.get_output_embeddings().weight.data_ptr()
    kept = sum(layer.weight.nbytes for layer in layers if layer.weight.data_ptr() != own)
    packed = sum(layer.packed.numel() * 4 for layer in layers if layer.packed is not None)
    assert planned(role, dense_copy=True).dense_copy == kept + packed
    assert packed > kept
    assert planned(role).dense_copy == 0


def test_a_plan_needs_no_weights(tmp_path: Path) -> None:
    shape = Qwen3Config(intermediate_size=12288, num_hidden_layers=36, num_key_value_heads=8)  # Qwen3-8B
    shape.save_pretrained(tmp_path)
    memory = planned(RoleConfig(str(tmp_path)), width=torch.bfloat16)
    assert 5 < memory.base / 2**30 < 6.5
    with pytest.raises(ConfigurationError, match=r"nowhere.*HINT: give `pocket`, a folder with config"):
        meta_model(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_an_update_keeps_is_planned(tmp_path: Path, dtype: torch.dtype) -> None:
    """Qwen3's norms keep more than their type says, those of queries and keys too."""
    config = Qwen3Config(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
    )
    Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    make_tiny_tokenizer(vocab=512).save_pretrained(tmp_path)
    role = RoleConfig(str(tmp_path))
    base = load_base(str(tmp_path), quantization="none", compute_dtype=dtype)
    policy = Policy("main", role, base, seed=0)
    weights = {parameter.untyped_storage().data_ptr() for parameter in base.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.arange(1000)[None] % 512
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, -8:] = True
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        action_logprobs(policy, ids, torch.tensor([1000]), mask, temperature=1.0)
    planned_layers = planned(role, quantization="none", width=dtype).activations / (1 + HOLES) - dtype.itemsize * LOGITS
    assert sum(kept.values()) == pytest.approx(planned_layers, rel=0.1)
