"""Fork and ForkingSampler: repeat a rollout's turns up to an invocation, which is kept or sampled anew; play on.

Of a played rollout main's turns up to the one that made the call are said again word for word, and so are the other
sub trajectories that were called by then. ``kept`` copies also say the invocation's own turns again, fresh ones sample
it anew; what main does after the report is sampled in both. So the copies differ in one sub trajectory and in chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, Sampler, SamplingParams
from mgrpo_lightning.records.trajectory import Rollout, Trajectory


@dataclass(frozen=True)
class Fork:
    """What the copies of one rollout say again, by invocation."""

    turns: dict[int, list[SampledTurn]]
    invocation: int
    kept: int
    """Copies, the first ones, that say the invocation's turns again too."""

    @classmethod
    def at(cls, rollout: Rollout, invocation: int, *, kept: int) -> Fork:
        """The fork of a rollout at one of its sub trajectories.

        Args:
            rollout: As it was played.
            invocation: Index of the sub trajectory; main called it.
            kept: How many copies keep it.
        """
        (made,) = (call.turn for call in rollout.main.calls if call.invocation == invocation)
        called = [call.invocation for call in rollout.main.calls if call.turn <= made and call.invocation is not None]
        said = {number: turns_of(rollout.subs[number - 1]) for number in called}
        return cls({0: turns_of(rollout.main)[: made + 1], **said}, invocation, kept)

    def said(self, copy: int, invocation: int) -> list[SampledTurn]:
        """The turns that a copy's trajectory begins with.

        Args:
            copy: Index of the copy.
            invocation: Of the trajectory.
        """
        sampled_anew = invocation == self.invocation and copy >= self.kept
        return [] if sampled_anew else list(self.turns.get(invocation, []))


def turns_of(trajectory: Trajectory) -> list[SampledTurn]:
    """A trajectory's turns as they were sampled.

    Args:
        trajectory: Played here.
    """
    return [
        SampledTurn(span.ids, span.logprobs, not span.truncated, span.version)
        for span in trajectory.spans
        if span.kind == "action"
    ]


class ForkingSampler:
    """A sampler whose conversations first say what a fork says again.

    Args:
        sampler: Samples what follows.
        forks: One for each query of the play; its rollouts are the copies.
    """

    def __init__(self, sampler: Sampler, forks: Sequence[Fork]) -> None:
        self._sampler = sampler
        self._forks = forks

    def open(self, ids: Sequence[int], order: tuple[int, ...]) -> Conversation:
        """A conversation on a prompt: main's by its query, others by query, copy and invocation."""
        fork = self._forks[order[0]]
        said = fork.said(order[1], order[2]) if len(order) == 3 else fork.said(0, 0)
        return _Conversation(self._sampler.open(ids, order), said)


@dataclass
class _Conversation(Conversation):
    inner: Conversation
    said: list[SampledTurn] = field(default_factory=list)

    @property
    def length(self) -> int:
        return self.inner.length

    def extend(self, ids: Sequence[int]) -> None:
        self.inner.extend(ids)

    async def sample(self, params: SamplingParams, stream: int) -> SampledTurn:
        if not self.said:
            return await self.inner.sample(params, stream)
        turn = self.said.pop(0)
        self.inner.extend(turn.ids)
        return turn

    def fork(self, n: int) -> list[Conversation]:
        return [_Conversation(child, list(self.said)) for child in self.inner.fork(n)]

    def close(self) -> None:
        self.inner.close()
