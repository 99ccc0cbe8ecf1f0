"""Tokens and CachedConversation: a growing sequence, its row and parent prefix in the KV cache, its turn requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, SamplingParams

if TYPE_CHECKING:
    import asyncio


# eq=False: compared and hashed by identity, because two sequences may hold the same ids.
@dataclass(eq=False)
class Tokens:
    """Token ids, and how many of them are in the KV cache.

    Between turns the last id is not cached: the model still has to process it to give the logits of the next id.
    """

    ids: list[int]
    order: tuple[int, ...]
    """Sort key of the sequence within a batch."""
    cached: int = 0
    """Number of leading ids whose keys and values are in the cache."""
    row: int | None = None
    """Row in the cache; None: no row."""
    version: int = -1
    """Policy version of the cached keys and values."""
    parent: Tokens | None = None
    """A shared prefix. Its cache is copied when this sequence is first computed."""
    used: int = 0
    """Number of the batch that last sampled from it; the cache drops the least recently used rows first."""
    users: int = 1
    """Reference count: conversations and child sequences that still need this cache."""

    def release(self) -> None:
        """Decrement the reference count; at 0 release the parent too."""
        self.users -= 1
        if self.users == 0 and self.parent is not None:
            self.parent.release()
            self.parent = None


@dataclass(eq=False)
class Request:
    """A request for one turn."""

    tokens: Tokens
    """The sequence to continue."""
    params: SamplingParams
    stream: int
    """Stream of random numbers of this turn."""
    future: asyncio.Future[SampledTurn] = field(repr=False)
    """Gets the sampled turn."""


class Submit(Protocol):
    """The function through which a conversation requests a turn."""

    async def __call__(self, tokens: Tokens, params: SamplingParams, stream: int) -> SampledTurn:
        """Request a turn and wait for it."""
        ...


class CachedConversation:
    """A conversation with rows in a ``RowCache`` (see ``base.Conversation``)."""

    def __init__(self, tokens: Tokens, submit: Submit) -> None:
        self._tokens: Tokens | None = tokens
        self._submit = submit

    @property
    def length(self) -> int:
        """Number of tokens so far."""
        return len(self._open.ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Append observation ids. They are computed with the next turn."""
        self._open.ids.extend(ids)

    async def sample(self, params: SamplingParams, stream: int) -> SampledTurn:
        """Sample one turn and append it."""
        return await self._submit(self._open, params, stream)

    def fork(self, n: int) -> list[Conversation]:
        """Return n conversations that start with this prefix, which is computed once and copied. Closes this one."""
        prefix = self._open
        # Count the children before close() gives up this user, or the count would reach 0 in between.
        prefix.users += n
        children = [Tokens(ids=list(prefix.ids), order=(*prefix.order, index), parent=prefix) for index in range(n)]
        self.close()
        return [CachedConversation(child, self._submit) for child in children]

    def close(self) -> None:
        """Release the cache. A second call does nothing."""
        if self._tokens is not None:
            self._tokens.release()
            self._tokens = None

    @property
    def _open(self) -> Tokens:
        assert self._tokens is not None, "the conversation was closed or forked"
        return self._tokens
