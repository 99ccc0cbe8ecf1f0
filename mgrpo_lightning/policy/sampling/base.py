"""Sampler and Conversation: the seam between agents, which want turns, and an engine, which makes tokens.

An agent opens a conversation on its prompt ids, samples a turn, extends it with observation ids, samples again. The
engine batches whatever waits and keeps the KV cache for as long as the conversation is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one turn is sampled."""

    max_new_tokens: int
    stop_ids: tuple[int, ...]
    """A turn ends with the first of these; it is part of the action and trained (correctness.md 3)."""
    temperature: float = 1.0
    """Divides the logits; 0 is greedy (log-probabilities are then those of temperature 1)."""
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class SampledTurn:
    """One turn: ids with their log-probabilities at the sampling temperature."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    """False when max_new_tokens cut it."""
    version: int
    """Policy version that made it; one per turn."""


class Conversation(Protocol):
    """One growing token sequence with its KV cache."""

    @property
    def length(self) -> int:
        """Tokens so far."""
        ...

    def extend(self, ids: Sequence[int]) -> None:
        """Put observation ids behind what is there; nothing is computed until the next sample."""
        ...

    async def sample(self, params: SamplingParams, stream: int) -> SampledTurn:
        """Sample one turn; its ids become part of the sequence. ``stream`` seeds the counter-based random numbers."""
        ...

    def fork(self, n: int) -> list[Conversation]:
        """Make n conversations that share this prefix, prefilled once. This one must not be used afterwards."""
        ...

    def close(self) -> None:
        """Free the cache."""
        ...


class Sampler(Protocol):
    """The engine behind one role's policy."""

    exact: bool
    """Bitwise repeatable, and behaviour log-probabilities come from the trainer's own numerics."""
    stateful: bool
    """Owns a KV cache."""

    def open(self, ids: Sequence[int], order: tuple[int, ...]) -> Conversation:
        """A conversation on a prompt; ``order`` is its place in a batch under the ``rounds`` schedule."""
        ...
