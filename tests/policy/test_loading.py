"""Loading bases: 4-bit layers, frozen weights, heads of several architectures, clear refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.lm_head import check_lm_head
from mgrpo_lightning.policy.loading import Base, Quantization, load_base
from mgrpo_lightning.policy.quantised import unquantised
from tests.support.tiny import make_tiny_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}


def test_nf4_quantises_every_linear_layer_but_the_head(make_base: Callable[..., Base]) -> None:
    model = make_base("nf4").model
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if "proj" in name}
    assert len(kinds) == 14
    assert set(kinds.values()) == {"Linear4bit"}
    assert model.get_submodule("model.layers.0.mlp.up_proj").weight.dtype == torch.uint8


@pytest.mark.parametrize(("quantization", "stays"), [("none", True), ("nf4", False)])
def test_the_file_of_a_quantised_base_does_not_stay_in_memory(
    tiny_dir: Path, tmp_path: Path, quantization: Quantization, *, stays: bool
) -> None:
    """Of a mapped file everything that was read stays, for as long as one tensor is a part of it."""
    folder = str(shutil.copytree(tiny_dir, tmp_path / "base"))
    base = load_base(folder, quantization=quantization, compute_dtype=torch.float32)
    assert base.name == folder
    assert (folder in Path("/proc/self/maps").read_text()) is stays


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_the_base_is_frozen_and_in_eval_mode(make_base: Callable[..., Base], quantization: str) -> None:
    base = make_base(quantization)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training


def test_every_eos_id_of_the_model_is_known(make_base: Callable[..., Base]) -> None:
    base = make_base()
    assert base.eos_ids == (
        base.tokenizer.convert_tokens_to_ids("<|im_end|>"),
        base.tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )


@pytest.mark.parametrize("content", [None, "config"])
def test_a_missing_or_broken_folder_is_a_clear_error(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "nowhere"
    if content:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"nowhere.*HINT: give `pocket`, a folder"):
        load_base(str(folder), quantization="none", compute_dtype=torch.float32)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES),
        Qwen3Config(**SIZES),
        GraniteConfig(**SIZES, logits_scaling=4.0),
        CohereConfig(**SIZES, logit_scale=0.2),
        Gemma2Config(**SIZES, final_logit_softcapping=0.3),
    ],
    ids=lambda config: config.model_type,
)
def test_our_head_makes_the_models_own_logits(config: PreTrainedConfig) -> None:
    check_lm_head(AutoModelForCausalLM.from_config(config), "tiny")


def test_a_head_that_does_something_else_is_refused(make_base: Callable[..., Base]) -> None:
    model = make_base().model
    model.config.logit_scale = 3.0  # Llama does not use it, our head would
    with pytest.raises(ConfigurationError, match="LlamaForCausalLM"):
        check_lm_head(model, "tiny")


def moe(folder: Path) -> Path:
    """A tiny Qwen3-MoE: its experts are 3-D parameters, which bitsandbytes does not quantise."""
    config = Qwen3MoeConfig(**SIZES, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_base_whose_experts_stay_at_full_width_is_no_nf4_base(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"9\d% of the bytes .*layers\.0\.mlp\.experts\.gate_up_proj"):
        load_base(str(moe(tmp_path)), quantization="nf4", compute_dtype=torch.float32)
    load_base(str(tmp_path), quantization="none", compute_dtype=torch.float32)


def test_embedding_and_head_do_not_count_as_left_out(make_base: Callable[..., Base]) -> None:
    share, large = unquantised(make_base("nf4").model)
    assert (share, large) == (0.0, {})
    share, large = unquantised(make_base("none").model)
    assert share == 1.0
    assert len(large) == 14
