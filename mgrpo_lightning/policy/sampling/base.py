"""Sampler and Conversation, the interface for agents: open, sample, extend, fork, close; SamplingParams, SampledTurn.

An agent opens a conversation with its prompt ids, samples a turn, appends observation ids, and samples again. The
engine decodes all waiting turns as one batch. It keeps the KV cache of a conversation until the conversation is closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling settings of one turn."""

    max_new_tokens: int
    """Upper limit of a turn's length in tokens, the stop token included."""
    stop_ids: tuple[int, ...]
    """A turn ends with the first of these ids. The stop token is part of the action and trained (correctness.md 3)."""
    temperature: float = 1.0
    """Divides the logits. 0 means greedy; the log-probabilities are then those of temperature 1."""
    top_p: float = 1.0
    """Nucleus sampling: sample from the smallest set of most likely ids that reaches this probability; 1 is off."""
    top_k: int = 0
    """Sample from the ``top_k`` most likely ids only; 0 is off."""


@dataclass(frozen=True, slots=True)
class SampledTurn:
    """One sampled turn."""

    ids: tuple[int, ...]
    """The sampled token ids, the stop token included."""
    logprobs: tuple[float, ...]
    """Log-probability of each id, of the full distribution at the sampling temperature."""
    stopped: bool
    """True if the turn ended with a stop token, False if ``max_new_tokens`` cut it."""
    version: int
    """Policy version that sampled the turn. One version samples the whole turn."""


class Conversation(Protocol):
    """One growing token sequence with its KV cache."""

    @property
    def length(self) -> int:
        """Number of tokens so far."""
        ...

    def extend(self, ids: Sequence[int]) -> None:
        """Append observation ids. The engine computes them at the next ``sample``."""
        ...

    async def sample(self, params: SamplingParams, stream: int) -> SampledTurn:
        """Sample one turn and append its ids. ``stream`` seeds the counter-based random numbers (see ``random.py``)."""
        ...

    def fork(self, n: int) -> list[Conversation]:
        """Return n conversations that start with this one's tokens, prefilled once. Do not use this one afterwards."""
        ...

    def close(self) -> None:
        """Free the KV cache of this conversation."""
        ...


class Sampler(Protocol):
    """The engine behind one role's policy."""

    def open(self, ids: Sequence[int], order: tuple[int, ...]) -> Conversation:
        """Open a conversation with prompt ids. ``order`` sorts it within a batch."""
        ...
