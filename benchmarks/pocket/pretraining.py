"""Pretraining loop of the pocket model: cross-entropy on masked tokens, Muon and AdamW, warm-up and cosine, bf16.

Matrices inside the layers are moved by Muon, which needs about half the tokens that AdamW needs at this size; the
embeddings and norms by AdamW.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from benchmarks.pocket.muon import Muon


@dataclass(frozen=True, slots=True)
class Document:
    """A token sequence; the loss counts the tokens that `mask` marks."""

    ids: tuple[int, ...]
    mask: tuple[bool, ...]


@dataclass(frozen=True)
class Settings:
    """One phase of the curriculum."""

    steps: int
    lr: float = 4e-3
    """Peak learning rate; a linear warm-up and a cosine to `final` of it."""
    warmup: int = 20
    final: float = 0.05
    seed: int = 0
    slow: float = 0.12
    """Share of the rate for the parts that copy from the start."""


def collate(batch: Sequence[Document]) -> tuple[Tensor, Tensor]:
    """Ids and mask of shape (B, T), padded on the right with id 0, mask False."""
    length = max(len(document.ids) for document in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    mask = torch.zeros(len(batch), length, dtype=torch.bool)
    for row, document in enumerate(batch):
        ids[row, : len(document.ids)] = torch.tensor(document.ids)
        mask[row, : len(document.mask)] = torch.tensor(document.mask)
    return ids, mask


def chosen_logits(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, V) that predict the masked tokens, and the tokens (N,); no other logit is computed."""
    hidden = model.get_decoder()(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    wanted = mask[:, 1:]
    return model.get_output_embeddings()(hidden[wanted]), ids[:, 1:][wanted]


def pretrain(
    model: PreTrainedModel,
    stream: Iterator[Sequence[Sequence[Document]]],
    settings: Settings,
    *,
    report: Callable[[int, float, list[float]], None] = lambda step, loss, accuracies: None,
) -> None:
    """Train all parameters of `model` on `settings.steps` batches of `stream`, in place.

    Args:
        model: A causal LM in fp32.
        stream: Batches, each a list of micro-batches; every chosen token of a batch counts the same.
        settings: Length and rates of this phase.
        report: Called at each step with the mean loss in nats and the share of right tokens of each micro-batch.
    """
    torch.manual_seed(settings.seed)
    bf16 = bf16_is_faster()
    optimizers = _optimizers(model, settings)
    model.train()
    for step in range(settings.steps):
        micro = [collate(documents) for documents in next(stream)]
        total = sum(int(mask[:, 1:].sum()) for _, mask in micro)
        loss, right = 0.0, []
        for ids, mask in micro:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits, targets = chosen_logits(model, ids, mask)
            part = functional.cross_entropy(logits.float(), targets, reduction="sum") / total
            part.backward()
            loss += part.item()
            right.append((logits.argmax(-1) == targets).float().mean().item())
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["share"] * learning_rate(step, settings)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        report(step, loss, right)
    model.eval()


def bf16_is_faster() -> bool:
    """Whether this CPU multiplies bf16 matrices faster than fp32 ones; it needs instructions of its own."""

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(512, 512, dtype=dtype)
        started = time.perf_counter()
        matrix @ matrix
        return time.perf_counter() - started

    return min(seconds(torch.bfloat16) for _ in range(5)) < min(seconds(torch.float32) for _ in range(5))


def _optimizers(model: PreTrainedModel, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest; ``share`` scales a group's learning rate.

    What the model can do from the start moves slowly: the embeddings and the attention of the first two layers, which
    copy. At the full rate they forget it within fifty steps.
    """
    embeddings, copying, inner, norms = [], [], [], []
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            embeddings.append(parameter)
        elif parameter.ndim < 2:
            norms.append(parameter)
        elif re.search(r"layers\.[01]\.self_attn", name):
            copying.append(parameter)
        else:
            inner.append(parameter)
    return [
        torch.optim.AdamW(
            [{"params": embeddings, "share": settings.slow}, {"params": norms, "share": 1.0}],
            lr=0.0,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        ),
        Muon([{"params": copying, "share": settings.slow}, {"params": inner, "share": 1.0}], lr=0.0, weight_decay=0.01),
    ]


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine from the peak to `final` times the peak."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * (settings.final + (1 - settings.final) * (1 + math.cos(math.pi * progress)) / 2)
