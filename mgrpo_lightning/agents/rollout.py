"""Play one rollout: open each agent's trajectory, played by a sampler, endpoint or script; reuse logged tool calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mgrpo_lightning.agents.agent import Agent
from mgrpo_lightning.agents.breakdowns import Breakdowns
from mgrpo_lightning.agents.calls import Outcome
from mgrpo_lightning.agents.discussion import discuss
from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.agents.text_conversations import EndpointConversation, ScriptedConversation
from mgrpo_lightning.errors import ConfigurationError, ToolBroken, ToolError
from mgrpo_lightning.persistence.resume_log import key_of
from mgrpo_lightning.policy.sampling.base import Conversation, Sampler
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.protocol.actions import ToolCall
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Key, Message, Rollout, Segment, Span, Trajectory
from mgrpo_lightning.services.client import ServiceFailed
from mgrpo_lightning.services.endpoint import ChatEndpoint
from mgrpo_lightning.tasks.base import HEAD

if TYPE_CHECKING:
    from mgrpo_lightning.agents.remote import RemoteCalls
    from mgrpo_lightning.policy.sampling.scheduler import Scheduler
    from mgrpo_lightning.store.record import Record


@dataclass(frozen=True)
class Play:
    """A request, and the services with which all its rollouts are played."""

    request: PlayRequest
    seats: Mapping[str, Seat]
    samplers: Mapping[str, Sampler]
    endpoints: Mapping[str, ChatEndpoint]
    """Endpoints of the roles that have no sampler, by role."""
    scheduler: Scheduler
    seed: int
    breakdowns: Breakdowns
    remote: RemoteCalls | None = None
    """Calls to and from roles that other processes play (decoupled runs). None: all roles are played here."""


class RolloutPlay:
    """One rollout in play. Invocations are numbered in the order of the calls.

    Args:
        play: Request and services that it shares with the other rollouts.
        question: The question that main answers.
        query: Index of the question within the step.
        rollout: Index k of the rollout within its group.
    """

    def __init__(self, play: Play, question: Question, *, query: int, rollout: int) -> None:
        self.play = play
        self.question = question
        self.place = (query, rollout)
        self._trajectories: dict[int, Trajectory] = {}

    async def main(self, role: str, conversation: Conversation | None) -> Rollout:
        """Play main's trajectory, or the discussion of main and its equals, to its end; returns the rollout.

        If the endpoint of main or of an equal fails, the rollout ends there, and its trajectories are interrupted.

        Args:
            role: Name of the main role.
            conversation: Conversation opened on main's prompt; None opens one here (scripts and endpoints).
        """
        with suppress(ServiceFailed):  # it concerns this rollout only; the others go on
            await self._heads(role, conversation)
        return self.rollout()

    async def _heads(self, role: str, conversation: Conversation | None) -> None:
        equals = self.play.seats[role].equals
        if not equals:
            await self._agent(self.open(role, self.question.text, parent=None), conversation).play()
            return

        def join(name: str) -> Callable[[Sequence[str]], Agent]:
            # Only main's conversation was opened in advance, on the prompt that the rollouts of the group share.
            return lambda heard: self._agent(
                self.open(name, self.question.text, parent=None, heard=heard), conversation if name == role else None
            )

        await discuss([join(name) for name in (role, *equals)])

    def rollout(self) -> Rollout:
        """The trajectories played so far. Those that other processes play have no segments."""
        # Sorted, as invocations of other processes are not added in the order of their numbers.
        main, *subs = (self._trajectories[number] for number in sorted(self._trajectories))
        return Rollout(main, subs)

    def open(
        self, role: str, task: str, *, parent: int | None, number: int | None = None, heard: Sequence[str] = ()
    ) -> Trajectory:
        """Create a trajectory, with its prompt if the role is played here.

        Args:
            role: Role that plays it.
            task: Text of the question or subtask.
            parent: Invocation index of the caller; None for main and its equals.
            number: Invocation index, if another process chose it; None: the next free number.
            heard: Texts of the calls that its equals made before it joined the discussion.
        """
        key = Key(self.play.request.step, *self.place, len(self._trajectories) if number is None else number)
        segments: list[Segment] = []
        messages: list[Message] = []
        temperature = self.play.request.temperature
        if role in self.play.seats:
            seat = self.play.seats[role]
            ids, messages = seat.prompt("\n\n".join([task, *seat.cut(heard)]))
            segments = [Segment([Span("observation", tuple(ids))])]
            temperature = seat.config.sampling.temperature if temperature is None else temperature
        # The temperature of a role that is played elsewhere is not known here.
        trajectory = Trajectory(role, key, task, temperature or 0.0, segments, messages, parent=parent)
        self._trajectories[key.invocation] = trajectory
        return trajectory

    async def serve(self, call: Record) -> Trajectory:
        """Play the trajectory of a delegation that another process made.

        Args:
            call: The delegation, as read from the store.
        """
        trajectory = self.open(call.role, call.text or "", parent=call.parent, number=call.key.invocation)
        await self._agent(trajectory, None).play()
        return trajectory

    async def report(self, trajectory: Trajectory) -> str:
        """Play a sub trajectory and return its answer, the report to its caller.

        Args:
            trajectory: A trajectory that ``open`` created.

        Raises:
            ToolError: The trajectory ended without an answer.
        """
        await self._agent(trajectory, None).play()
        if trajectory.answer is None:
            raise ToolError(f"{trajectory.role} gave no answer.")
        return trajectory.answer

    async def received(self, trajectory: Trajectory, report: Awaitable[str]) -> str:
        """Wait for the report of a trajectory that another process plays; set it as the trajectory's answer.

        Args:
            trajectory: A trajectory that ``open`` created; it has no segments here.
            report: Awaitable of the report, from ``RemoteCalls.delegate``.
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
            watch=self.play.request.watch,
        )

    def _converse(self, trajectory: Trajectory) -> Conversation:
        role, key = trajectory.role, trajectory.key
        seat, messages = self.play.seats[role], trajectory.messages
        length, request = trajectory.num_tokens, self.play.request
        if request.script is None and (endpoint := self.play.endpoints.get(role)) is not None:
            log = request.resume_log
            return EndpointConversation(endpoint, seat.chat, messages, length=length, key=key, resume_log=log)
        if request.script is None:
            return self.play.samplers[role].open(trajectory.segments[-1].ids, (key.query, key.rollout, key.invocation))
        if trajectory.parent is None:  # main and its equals share one script
            role, key = HEAD, key._replace(invocation=0)
        seed = self._stream("script", key, 0)
        script = request.script(self.question, role, trajectory.task, seed, callees=seat.config.calls)
        if script is None:
            raise ConfigurationError(
                f"the task has no demonstration for role {role!r} on question {self.question.id!r}.",
                hint="use a task whose `script` returns a demonstration for every role that it calls.",
            )
        return ScriptedConversation(script, seat.chat, messages, length=length)

    def _stream(self, purpose: str, key: Key, turn: int) -> int:
        return stream_of(self.play.seed, purpose, self.play.request.stage, *key, turn)


@dataclass(frozen=True)
class _Delegate:
    """The ``Delegate`` of one agent of a rollout."""

    rollout: RolloutPlay
    trajectory: Key
    """Key of the caller's trajectory."""

    def start(self, role: str, task: str) -> tuple[int, Awaitable[str]]:
        # Open it before anything is awaited: invocation numbers must not depend on the order of the event loop.
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
        self.rollout.play.breakdowns.add(call, error, encrypted=self.rollout.question.encrypted)

    async def once(self, place: tuple[int, int], call: ToolCall, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
        resume_log = self.rollout.play.request.resume_log
        if resume_log is None:
            return await run()
        # The key holds the arguments too: after a resume, the same place may hold another call.
        key = key_of("call", self.rollout.question.text, self.trajectory, place, call.name, call.arguments)
        if (known := resume_log.get(key)) is not None:
            return Outcome(**known)
        outcome = await run()
        resume_log.put(key, asdict(outcome))
        return outcome
