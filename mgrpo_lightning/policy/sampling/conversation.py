"""A growing token sequence with its place in the cache, and the conversation that agents hold on to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, SamplingParams

if TYPE_CHECKING:
    import asyncio


@dataclass(eq=False)
class Tokens:
    """Ids and how many of them are in the cache. The last id never is: computing it gives the next one's logits."""

    ids: list[int]
    order: tuple[int, ...]
    cached: int = 0
    row: int | None = None
    version: int = -1
    """Policy version of the cached keys and values."""
    parent: Tokens | None = None
    """A shared prefix whose cache is copied when this sequence is first computed."""
    used: int = 0
    """When it was last sampled from, in batches."""
    users: int = 1
    """Conversations and sequences that still need this one's cache."""

    def release(self) -> None:
        """One user less."""
        self.users -= 1
        if self.users == 0 and self.parent is not None:
            self.parent.release()
            self.parent = None


@dataclass(eq=False)
class Request:
    """One turn that somebody waits for."""

    tokens: Tokens
    params: SamplingParams
    stream: int
    future: asyncio.Future[SampledTurn] = field(repr=False)


class Submit(Protocol):
    """How a conversation asks for a turn."""

    async def __call__(self, tokens: Tokens, params: SamplingParams, stream: int) -> SampledTurn:
        """Wait for the turn."""
        ...


class SlotConversation:
    """The conversation of a sampler with a cache (see ``base.Conversation``)."""

    def __init__(self, tokens: Tokens, submit: Submit) -> None:
        self._tokens: Tokens | None = tokens
        self._submit = submit

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self._open.ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Append observation ids; they are computed with the next sample."""
        self._open.ids.extend(ids)

    async def sample(self, params: SamplingParams, stream: int) -> SampledTurn:
        """Sample one turn and append it."""
        return await self._submit(self._open, params, stream)

    def fork(self, n: int) -> list[Conversation]:
        """Conversations on this prefix, whose cache is computed once and copied; this one is used up."""
        prefix = self._open
        prefix.users += n
        children = [Tokens(ids=list(prefix.ids), order=(*prefix.order, index), parent=prefix) for index in range(n)]
        self.close()
        return [SlotConversation(child, self._submit) for child in children]

    def close(self) -> None:
        """Give the row back; closing twice is harmless."""
        if self._tokens is not None:
            self._tokens.release()
            self._tokens = None

    @property
    def _open(self) -> Tokens:
        assert self._tokens is not None, "the conversation was closed or forked"
        return self._tokens
