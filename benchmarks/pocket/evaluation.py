"""Evaluate the pocket model without playing: copying of random strings, and demonstrated turns word by word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from benchmarks.pocket.pretraining import Document, chosen_logits, collate

BATCH = 16


@torch.no_grad()
def copied(model: PreTrainedModel, *, length: int, vocabulary: int = 1500, seed: int = 0) -> float:
    """Share of repeated random strings, from their third token on, that greedy decoding continues rightly.

    Args:
        model: A causal LM.
        length: Tokens of a string; 7 other tokens stand between it and its repetition.
        vocabulary: The strings are made of the ids 3 to `vocabulary` - 1.
        seed: Of the strings.
    """
    generator = torch.Generator().manual_seed(seed)
    string = torch.randint(3, vocabulary, (BATCH, length), generator=generator)
    between = torch.randint(3, vocabulary, (BATCH, 7), generator=generator)
    ids = torch.cat([string, between, string], dim=1)
    said = model(input_ids=ids).logits[:, :-1].argmax(-1)
    return float((said == ids[:, 1:])[:, -length + 2 :].float().mean())


@torch.no_grad()
def told_right(model: PreTrainedModel, documents: Sequence[Document]) -> tuple[float, float]:
    """Shares of the counted tokens, and of whole documents, that greedy decoding says as the demonstrator does.

    Args:
        model: A causal LM.
        documents: Demonstrations; each token is asked for after the demonstrator's own words.
    """
    tokens: list[bool] = []
    whole: list[bool] = []
    for start in range(0, len(documents), BATCH):
        batch = documents[start : start + BATCH]
        ids, mask = collate(batch)
        logits, targets = chosen_logits(model, ids, mask)
        right = (logits.argmax(-1) == targets).split([sum(document.mask[1:]) for document in batch])
        tokens += torch.cat(right).tolist()
        whole += [bool(part.all()) for part in right]
    return sum(tokens) / len(tokens), sum(whole) / len(whole)
