"""Key, Span, Segment, Trajectory, Score, Rollout, Group: token ids, log-probabilities, calls and scores of a play.

A trajectory consists of the token ids that the sampler read and wrote, never of re-encoded text. The spans of a
segment, concatenated, are one token sequence of the policy. A token is trained if and only if its behaviour
log-probability is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from mgrpo_lightning.records.question import Question


class Key(NamedTuple):
    """Identifies one trajectory of a run (docs/store.md)."""

    step: int
    """Training step in which it is played; for validation, the number of steps done."""
    query: int
    """Index of the question within the step."""
    rollout: int
    """Index k of the rollout within its group."""
    invocation: int
    """0 is main. Sub trajectories count from 1, in the order in which main or a sub-agent made the calls."""


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens that were all sampled (action), or all put in front of the policy (observation).

    Raises:
        AssertionError: The number of log-probabilities is not that of the action tokens (correctness.md 5).
    """

    kind: Literal["observation", "action"]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    """Behaviour log-probability of each action token at the sampling temperature, in nats; empty for observations."""
    version: int = 0
    """Number of updates of the adapter that sampled the tokens."""
    truncated: bool = False
    """A limit cut the turn, so it has no stop token."""

    def __post_init__(self) -> None:
        assert len(self.logprobs) == (len(self.ids) if self.kind == "action" else 0), (
            "log-probs only and all on actions"
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One message as text, for people, judges and the viewer. It is never encoded again."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call or delegation that finished or failed."""

    turn: int
    """Index of the turn that made the call."""
    name: str
    """Name of the tool or role."""
    arguments: dict[str, object]
    result: str
    """Text for the policy, before it was cut to the observation limit."""
    failed: bool = False
    invocation: int | None = None
    """Invocation index of the sub trajectory that the call made; None for a tool."""
    seconds: float = 0.0


@dataclass(slots=True)
class Segment:
    """A token sequence that was sampled with one growing context, from its prompt on; one row of training.

    The package's agents never drop a part of their context, so each of their trajectories has one segment. An agent
    that folds its context, or a template that drops earlier thoughts, starts another segment with a prompt of its own.
    """

    spans: list[Span]
    """The prompt, an observation, then actions and observations as they came."""

    @property
    def ids(self) -> list[int]:
        """All token ids, shape (T,)."""
        return [token for span in self.spans for token in span.ids]

    @property
    def action_mask(self) -> list[bool]:
        """True exactly on sampled tokens, shape (T,)."""
        return [span.kind == "action" for span in self.spans for _ in span.ids]

    @property
    def logprobs(self) -> list[float]:
        """Behaviour log-probabilities, 0 on observation tokens, shape (T,)."""
        return [value for span in self.spans for value in (span.logprobs or (0.0,) * len(span.ids))]


@dataclass(slots=True)
class Trajectory:
    """What one agent read and said for one question (main) or subtask (sub-agent).

    Its reward, advantage and slots are those of all its segments.
    """

    role: str
    key: Key
    task: str
    """Text of the question or subtask."""
    temperature: float = 1.0
    segments: list[Segment] = field(default_factory=list)
    """In the order in which they were sampled; empty if another process played it."""
    messages: list[Message] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    answer: str | None = None
    """Text of the last ``<answer>``; None without an answer. In a discussion: the team's answer."""
    violations: list[str] = field(default_factory=list)
    """Names of the violated format rules; empty for a valid format."""
    parent: int | None = None
    """Invocation index of the caller, None for main and its equals."""

    @property
    def elsewhere(self) -> bool:
        """Whether another process played it. Then this process has no tokens of it, not even the prompt."""
        return not self.segments

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans of all segments, in their order."""
        return tuple(span for segment in self.segments for span in segment.spans)

    @property
    def valid(self) -> bool:
        """Whether the format is valid, so the format reward is given."""
        return not self.violations

    @property
    def num_tokens(self) -> int:
        """Number of tokens of all segments."""
        return sum(len(span.ids) for span in self.spans)

    @property
    def num_actions(self) -> int:
        """Number of sampled tokens."""
        return sum(len(span.ids) for span in self.spans if span.kind == "action")

    @property
    def num_turns(self) -> int:
        """Number of sampled messages (turns)."""
        return sum(span.kind == "action" for span in self.spans)

    @property
    def truncated(self) -> bool:
        """Whether a limit cut any turn."""
        return any(span.truncated for span in self.spans)


@dataclass(frozen=True, slots=True)
class Score:
    """Reward of one trajectory and its parts (eq. 4, 5). A failed one leaves its group before mean and std."""

    format: float
    correct: float = 0.0
    correct_main: float = 0.0
    expert: float = 0.0
    total: float = 0.0
    failed: bool = False
    functions: Mapping[str, float | None] = field(default_factory=dict)
    """Values of the user's reward functions by name, None where undecided. Empty where a component is undecided."""

    def part(self, name: str) -> float | None:
        """Return the value of a component or of a reward function; None if it is undecided or was not computed.

        Args:
            name: Name of a component of the paper or of a function.
        """
        return self.functions[name] if name in self.functions else getattr(self, name, None)


@dataclass(slots=True)
class Rollout:
    """One main trajectory with its sub trajectories, or with those of its equals."""

    main: Trajectory
    subs: list[Trajectory] = field(default_factory=list)
    """Sorted by invocation index, ``subs[i].key.invocation == i + 1``."""
    scores: dict[int, Score] = field(default_factory=dict)
    """Scores by invocation index, 0 for main; filled by scoring."""

    @property
    def leads(self) -> list[Trajectory]:
        """The trajectories that answer the question itself: main's, and those of its equals."""
        return [self.main, *(t for t in self.subs if t.parent is None)]

    def trajectories(self, role: str | None = None) -> Iterator[Trajectory]:
        """Iterate over main's trajectory, then the sub trajectories; only those of ``role`` if given."""
        return (t for t in (self.main, *self.subs) if role is None or t.role == role)


@dataclass(slots=True)
class Group:
    """The K rollouts of one query."""

    question: Question
    rollouts: list[Rollout]
