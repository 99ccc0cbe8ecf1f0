"""Span, Trajectory, Rollout, Group: the token-exact record that everything else reads.

A trajectory is made of the ids that the sampler saw and made, never of re-encoded text: its spans, joined, are the
sequence of the policy, and an id is trained if and only if a behaviour log-probability is stored for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from mgrpo_lightning.records.question import Question


class Key(NamedTuple):
    """Which trajectory: the position of everything a run records (docs/store.md)."""

    step: int
    """Training step (the policy version that plays it); validation uses the step it runs at."""
    query: int
    """Index of the question within the step."""
    rollout: int
    """Index k of the rollout within its group."""
    invocation: int
    """0 is main; sub trajectories count from 1 in the order main (or a sub-agent) made the calls."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of ids that were all sampled (action) or all put in front of the policy (observation).

    Raises:
        AssertionError: Log-probabilities are not stored for exactly the action ids (correctness.md 5).
    """

    kind: Literal["observation", "action"]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    """Behaviour log-probability of each action id at the sampling temperature, in nats."""
    version: int = 0
    """Number of updates the sampling adapter had had."""
    truncated: bool = False
    """The turn was cut by a limit, so it has no stop token."""

    def __post_init__(self) -> None:
        assert len(self.logprobs) == (len(self.ids) if self.kind == "action" else 0), (
            "log-probs only and all on actions"
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One message as text: a view for people, judges and the viewer; never encoded again."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call or delegation, finished or failed."""

    turn: int
    """Index of the turn that made it."""
    name: str
    """Tool or role."""
    arguments: dict[str, object]
    result: str
    """What the policy was shown (before cutting)."""
    failed: bool = False
    invocation: int | None = None
    """The sub trajectory it made, None for a tool."""
    seconds: float = 0.0


@dataclass(slots=True)
class Trajectory:
    """One agent's whole sequence for one question (main) or subtask (sub-agent)."""

    role: str
    key: Key
    task: str
    """The question or subtask text it was given."""
    temperature: float = 1.0
    spans: list[Span] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    answer: str | None = None
    """Text of the last ``<answer>``; None when it never gave one. In a discussion that of the team."""
    violations: list[str] = field(default_factory=list)
    """Names of the format rules it broke; empty means a valid format."""
    parent: int | None = None
    """Invocation index of the caller, None for main and its equals."""

    @property
    def elsewhere(self) -> bool:
        """Whether another process played it: its turns are there, and not even its prompt is here."""
        return not self.spans

    @property
    def valid(self) -> bool:
        """Whether the format reward is earned."""
        return not self.violations

    @property
    def ids(self) -> list[int]:
        """All token ids, shape (T,)."""
        return [token for span in self.spans for token in span.ids]

    @property
    def action_mask(self) -> list[bool]:
        """True exactly on sampled ids, shape (T,)."""
        return [span.kind == "action" for span in self.spans for _ in span.ids]

    @property
    def logprobs(self) -> list[float]:
        """Behaviour log-probabilities, 0 on observations, shape (T,)."""
        return [value for span in self.spans for value in (span.logprobs or (0.0,) * len(span.ids))]

    @property
    def num_tokens(self) -> int:
        """T."""
        return sum(len(span.ids) for span in self.spans)

    @property
    def num_actions(self) -> int:
        """Number of sampled ids."""
        return sum(len(span.ids) for span in self.spans if span.kind == "action")

    @property
    def num_turns(self) -> int:
        """Number of sampled messages."""
        return sum(span.kind == "action" for span in self.spans)

    @property
    def truncated(self) -> bool:
        """Whether any turn was cut by a limit."""
        return any(span.truncated for span in self.spans)


@dataclass(frozen=True, slots=True)
class Score:
    """Reward components of one trajectory (eq. 4, 5); ``failed`` ones leave the group before mean and std."""

    format: float
    correct: float = 0.0
    correct_main: float = 0.0
    expert: float = 0.0
    total: float = 0.0
    failed: bool = False


@dataclass(slots=True)
class Rollout:
    """One main trajectory with its sub trajectories, or those of its equals."""

    main: Trajectory
    subs: list[Trajectory] = field(default_factory=list)
    """Sorted by invocation index, ``subs[i].key.invocation == i + 1``."""
    scores: dict[int, Score] = field(default_factory=dict)
    """By invocation index, 0 for main; filled by scoring."""

    @property
    def heads(self) -> list[Trajectory]:
        """Main's trajectory, and those of its equals: who was asked the question."""
        return [self.main, *(t for t in self.subs if t.parent is None)]

    def trajectories(self, role: str | None = None) -> Iterator[Trajectory]:
        """Main first, then the sub trajectories; only those of ``role`` if given."""
        return (t for t in (self.main, *self.subs) if role is None or t.role == role)


@dataclass(slots=True)
class Group:
    """The K rollouts of one query."""

    question: Question
    rollouts: list[Rollout]
