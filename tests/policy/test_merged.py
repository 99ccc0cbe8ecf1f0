"""A merged model: it computes what base and adapter compute, up to the rounding of its type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.policy.merged import logprobs, merge
from mgrpo_lightning.policy.policy import Policy

BOUNDS = {"float32": 1e-5, "bfloat16": 3e-2}
"""Largest mean difference in nats a token: rounding of the sum of base and adapter."""


def rows() -> list[tuple[Tensor, Tensor]]:
    """Rows of two lengths; all tokens but the first are scored."""
    return [(ids, torch.arange(len(ids)) > 0) for ids in (torch.arange(1, 40) * 7 % 384, torch.arange(3, 20))]


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_merged_model_computes_what_the_policy_computes(
    make_policy: Callable[..., Policy], tmp_path: Path, dtype: str, quantization: str
) -> None:
    policy = make_policy(quantization=quantization, dtype=getattr(torch, dtype))
    policy.save_peft(tmp_path / "adapter")
    expected = logprobs(policy, rows())

    def apart(quantization: str) -> tuple[float, nn.Module]:
        base = load_base(policy.base.name, quantization=quantization, compute_dtype=getattr(torch, dtype))  # type: ignore[arg-type]
        bare = logprobs(base.model, rows())
        assert (bare - expected).abs().mean() > 0.1, "the adapter matters"
        model = merge(base, tmp_path / "adapter")
        return float((logprobs(model, rows()) - expected).abs().mean()), model

    difference, model = apart(quantization)
    assert difference <= BOUNDS[dtype]
    assert not any("lora" in name for name, _ in model.named_modules())
    if quantization == "nf4":
        assert apart("none")[0] > 2 * BOUNDS["bfloat16"], "on the original base the adapter computes something else"
    model.save_pretrained(tmp_path / "merged")  # type: ignore[operator]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        difference = float((plain(ids).logits - model(ids).logits).abs().max())
    assert difference <= (1e-5 if dtype == "float32" else 0.25), "up to the order of sums"
