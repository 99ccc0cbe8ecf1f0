"""ResumedSampler: take a turn from the resume log if a killed process sampled it; else sample and record it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b

from mgrpo_lightning.persistence.resume_log import ResumeLog, key_of
from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, Sampler, SamplingParams


class ResumedSampler:
    """A sampler that replays recorded turns after a restart.

    A recorded turn is replayed only if the ids before it, the sampling settings and the stream of random numbers are
    the same as when it was sampled.

    Args:
        sampler: Samples the turns that are not in the log.
        resume_log: Resume log of the current step. Its identity covers the adapter, so the key of a turn need not.
    """

    def __init__(self, sampler: Sampler, resume_log: ResumeLog) -> None:
        self._sampler = sampler
        self._resume_log = resume_log

    def open(self, ids: Sequence[int], order: tuple[int, ...]) -> Conversation:
        """Open a conversation with prompt ids. Nothing is computed before the first turn that is not in the log."""
        # A running hash of all ids: the key of a turn costs the same, however long the conversation is.
        seen = blake2b(digest_size=16)
        seen.update(array("q", ids))
        return _Conversation(self._sampler.open(ids, order), self._resume_log, seen)


class _Conversation:
    def __init__(self, conversation: Conversation, resume_log: ResumeLog, seen: blake2b) -> None:
        self._inner = conversation
        self._resume_log = resume_log
        self._seen = seen

    @property
    def length(self) -> int:
        return self._inner.length

    def extend(self, ids: Sequence[int]) -> None:
        self._inner.extend(ids)
        self._seen.update(array("q", ids))

    async def sample(self, params: SamplingParams, stream: int) -> SampledTurn:
        key = key_of("turn", self._seen.hexdigest(), params, stream)
        known = self._resume_log.get(key)
        if known is None:
            turn = await self._inner.sample(params, stream)
            self._resume_log.put(key, asdict(turn))
        else:
            turn = SampledTurn(**known | {"ids": tuple(known["ids"]), "logprobs": tuple(known["logprobs"])})
            # The inner conversation did not sample this turn, so it gets the ids as if they were an observation.
            self._inner.extend(turn.ids)
        self._seen.update(array("q", turn.ids))
        return turn

    def fork(self, n: int) -> list[Conversation]:
        return [_Conversation(child, self._resume_log, self._seen.copy()) for child in self._inner.fork(n)]

    def close(self) -> None:
        self._inner.close()
