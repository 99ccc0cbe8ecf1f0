"""Merge an exported adapter into an unquantised base, and measure how far the merged model is from the policy.

An adapter is never merged into a 4-bit base: rounding to 4 bit again would lose most of it (correctness.md 23).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from mgrpo_lightning.policy.exported_base import dequantised
from mgrpo_lightning.policy.loading import Base
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.policy.policy import Policy

Row = tuple[Tensor, Tensor]
"""Token ids, int64, and the tokens to score, bool; both of shape (T,)."""


def merge(base: Base, adapter: Path) -> PreTrainedModel:
    """Merge an adapter into a base; 4-bit layers are dequantised first.

    Args:
        base: A base without adapters, as loaded. It is changed in place.
        adapter: PEFT folder of the adapter.

    Returns:
        The merged model: a plain model of transformers.
    """
    plain = dequantised(base)
    adapted = PeftModel.from_pretrained(plain, str(adapter), trust_remote_code=False, use_safetensors=True)
    model: PreTrainedModel = adapted.merge_and_unload()
    model.requires_grad_(False).eval()
    return model


@torch.no_grad()
def logprobs(model: Policy | PreTrainedModel, rows: Sequence[Row]) -> Tensor:
    """Log-probabilities at temperature 1 of the tokens to score, in nats, float32, flat.

    Args:
        rows: Rows with at least one token to score; the first token of a row cannot be scored.
    """
    ids, masks = zip(*rows, strict=True)
    lengths = torch.tensor([len(row) for row in ids], device=model.device)
    padded, mask = (pad_sequence(list(parts), batch_first=True).to(model.device) for parts in (ids, masks))
    return action_logprobs(model, padded, lengths, mask, temperature=1.0).float().cpu()
