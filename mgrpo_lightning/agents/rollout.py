"""Play one rollout: main, and every sub-agent it or its sub-agents call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from mgrpo_lightning.agents.agent import Agent
from mgrpo_lightning.agents.breakdowns import Breakdowns
from mgrpo_lightning.agents.calls import Outcome
from mgrpo_lightning.agents.discussion import discuss
from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.agents.texts import EndpointConversation, ScriptedConversation
from mgrpo_lightning.errors import ConfigurationError, ToolBroken, ToolError
from mgrpo_lightning.persistence.resume_log import OpenStep, key_of
from mgrpo_lightning.policy.sampling.base import Conversation, Sampler
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.protocol.actions import ToolCall
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Key, Message, Rollout, Span, Trajectory
from mgrpo_lightning.services.client import ServiceFailed
from mgrpo_lightning.services.endpoint import ChatEndpoint
from mgrpo_lightning.tasks.base import HEAD, Script

if TYPE_CHECKING:
    from mgrpo_lightning.agents.remote import RemoteCalls
    from mgrpo_lightning.policy.sampling.scheduler import Scheduler
    from mgrpo_lightning.store.record import Record

Stage = Literal["train", "validate", "predict"]
"""What is played for; part of every random stream, since steps of training and validation share their numbers."""


class Scripts(Protocol):
    """A demonstrator's behaviour for one trajectory; see ``Task.script``."""

    def __call__(
        self, question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]
    ) -> Script | None:
        """What the role says, None where it cannot be demonstrated."""
        ...


@dataclass(frozen=True)
class Play:
    """What all rollouts of one ``Team.play`` share."""

    seats: Mapping[str, Seat]
    samplers: Mapping[str, Sampler]
    endpoints: Mapping[str, ChatEndpoint]
    """Of roles without a sampler."""
    scheduler: Scheduler
    seed: int
    step: int
    stage: Stage
    temperature: float | None
    """Overrides the roles' own."""
    scripts: Scripts | None
    breakdowns: Breakdowns
    memory: OpenStep | None = None
    """What a killed play of this step has finished."""
    remote: RemoteCalls | None = None
    """Calls to and from roles that other processes play; None: all roles are played here."""


class RolloutPlay:
    """One rollout in play; it numbers the invocations in the order in which the calls are made.

    Args:
        play: What it shares with the others.
        question: What main is asked.
        query: Index of the question within the step.
        rollout: Index k within its group.
    """

    def __init__(self, play: Play, question: Question, *, query: int, rollout: int) -> None:
        self.play = play
        self.question = question
        self.place = (query, rollout)
        self._trajectories: dict[int, Trajectory] = {}

    async def main(self, role: str, conversation: Conversation | None) -> Rollout:
        """Play to main's end; if an endpoint that plays it, or an equal, gives no answer, it ends there, interrupted.

        Args:
            role: Main's name.
            conversation: Open on main's prompt; None opens one (a script's).
        """
        with suppress(ServiceFailed):  # of one question; the others' play goes on
            await self._heads(role, conversation)
        return self.rollout()

    async def _heads(self, role: str, conversation: Conversation | None) -> None:
        equals = self.play.seats[role].equals
        if not equals:
            await self._agent(self.open(role, self.question.text, parent=None), conversation).play()
            return

        def join(name: str) -> Callable[[Sequence[str]], Agent]:
            return lambda heard: self._agent(
                self.open(name, self.question.text, parent=None, heard=heard), conversation if name == role else None
            )

        await discuss([join(name) for name in (role, *equals)])

    def rollout(self) -> Rollout:
        """What has been played so far; what other processes played has no spans."""
        main, *subs = (self._trajectories[number] for number in sorted(self._trajectories))
        return Rollout(main, subs)

    def open(
        self, role: str, task: str, *, parent: int | None, number: int | None = None, heard: Sequence[str] = ()
    ) -> Trajectory:
        """A new trajectory, with its prompt if the role is played here.

        Args:
            role: Who plays it.
            task: What it is asked.
            parent: Invocation index of the caller.
            number: Its own invocation index, if another process gave it; None: the next.
            heard: What its equals have done before it joins them.
        """
        key = Key(self.play.step, *self.place, len(self._trajectories) if number is None else number)
        spans: list[Span] = []
        messages: list[Message] = []
        temperature = self.play.temperature
        if role in self.play.seats:
            seat = self.play.seats[role]
            ids, messages = seat.prompt("\n\n".join([task, *seat.cut(heard)]))
            spans = [Span("observation", tuple(ids))]
            temperature = seat.config.sampling.temperature if temperature is None else temperature
        trajectory = Trajectory(role, key, task, temperature or 0.0, spans, messages, parent=parent)
        self._trajectories[key.invocation] = trajectory
        return trajectory

    async def serve(self, call: Record) -> Trajectory:
        """Play what another process has delegated.

        Args:
            call: The delegation.
        """
        trajectory = self.open(call.role, call.text or "", parent=call.parent, number=call.key.invocation)
        await self._agent(trajectory, None).play()
        return trajectory

    async def report(self, trajectory: Trajectory) -> str:
        """Play a sub trajectory and return its answer.

        Args:
            trajectory: From ``open``.

        Raises:
            ToolError: It ended without an answer.
        """
        await self._agent(trajectory, None).play()
        if trajectory.answer is None:
            raise ToolError(f"{trajectory.role} gave no answer.")
        return trajectory.answer

    async def received(self, trajectory: Trajectory, report: Awaitable[str]) -> str:
        """The report of a trajectory that is played elsewhere; it is noted there as the answer.

        Args:
            trajectory: From ``open``.
            report: From ``RemoteCalls``.
        """
        trajectory.answer = await report
        return trajectory.answer

    def _agent(self, trajectory: Trajectory, conversation: Conversation | None) -> Agent:
        return Agent(
            self.play.seats[trajectory.role],
            trajectory,
            conversation or self._converse(trajectory),
            delegate=_Delegate(self, trajectory.key),
            stream=lambda turn: self._stream("turn", trajectory.key, turn),
        )

    def _converse(self, trajectory: Trajectory) -> Conversation:
        role, key = trajectory.role, trajectory.key
        seat, messages = self.play.seats[role], trajectory.messages
        length, memory = trajectory.num_tokens, self.play.memory
        if self.play.scripts is None and (endpoint := self.play.endpoints.get(role)) is not None:
            return EndpointConversation(endpoint, seat.chat, messages, length=length, key=key, memory=memory)
        if self.play.scripts is None:
            return self.play.samplers[role].open(trajectory.ids, (key.query, key.rollout, key.invocation))
        if trajectory.parent is None:  # equals follow one script: what each does is what main alone would do next
            role, key = HEAD, key._replace(invocation=0)
        seed = self._stream("script", key, 0)
        script = self.play.scripts(self.question, role, trajectory.task, seed, callees=seat.config.calls)
        if script is None:
            raise ConfigurationError(
                f"the task has no demonstration for role {role!r} on question {self.question.id!r}.",
                hint="demonstrations (a warm start) need a task whose `script` returns one for every role it calls.",
            )
        return ScriptedConversation(script, seat.chat, messages, length=length)

    def _stream(self, purpose: str, key: Key, turn: int) -> int:
        return stream_of(self.play.seed, purpose, self.play.stage, *key, turn)


@dataclass(frozen=True)
class _Delegate:
    """The calls of one agent of a rollout."""

    rollout: RolloutPlay
    trajectory: Key
    """The caller's."""

    def start(self, role: str, task: str) -> tuple[int, Awaitable[str]]:
        trajectory = self.rollout.open(role, task, parent=self.trajectory.invocation)
        if trajectory.elsewhere:
            remote = self.rollout.play.remote
            assert remote is not None
            report = remote.delegate(trajectory.key, role, task, self.trajectory.invocation)
            return trajectory.key.invocation, self.rollout.received(trajectory, report)
        return trajectory.key.invocation, self.rollout.play.scheduler.spawn(self.rollout.report(trajectory))

    def waiting(self) -> AbstractContextManager[None]:
        return self.rollout.play.scheduler.blocked()

    def broken(self, call: ToolCall, error: ToolBroken) -> None:
        self.rollout.play.breakdowns.add(call, error, sealed=self.rollout.question.sealed)

    async def once(self, place: tuple[int, int], call: ToolCall, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
        memory = self.rollout.play.memory
        if memory is None:
            return await run()
        key = key_of("call", self.rollout.question.text, self.trajectory, place, call.name, call.arguments)
        if (known := memory.get(key)) is not None:
            return Outcome(**known)
        outcome = await run()
        memory.put(key, asdict(outcome))
        return outcome
