"""Players: the agents of all roles of a team. They play K rollouts of each question concurrently, as groups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mgrpo_lightning.agents.breakdowns import Breakdowns
from mgrpo_lightning.agents.play import PlayRequest, PlayResult
from mgrpo_lightning.agents.remote import RemoteCalls
from mgrpo_lightning.agents.rollout import Play, RolloutPlay
from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.names import check_tools
from mgrpo_lightning.policy.sampling.base import Conversation, Sampler
from mgrpo_lightning.policy.sampling.resumed_sampler import ResumedSampler
from mgrpo_lightning.protocol.actions import Dialect, HermesDialect
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Trajectory
from mgrpo_lightning.roles.config import RoleConfig, main_role
from mgrpo_lightning.services.endpoint import ChatEndpoint
from mgrpo_lightning.tools.base import Tool

if TYPE_CHECKING:
    from mgrpo_lightning.policy.chat import Chat
    from mgrpo_lightning.policy.sampling.scheduler import Scheduler
    from mgrpo_lightning.store.exchange import Exchange
    from mgrpo_lightning.store.record import Record


class Players:
    """All roles of a team, ready to play. The public class for users is ``mgrpo_lightning.Team``.

    Args:
        roles: Configuration of every role of the team, by name.
        chats: Chat template and tokenizer of each role that this process plays.
        samplers: Inference engine of each role; may be empty if only scripts play.
        tools: Tools by the names that the roles' ``tools`` use.
        scheduler: Runs the agents and batches their turns.
        seed: Seed of the run, part of every random stream.
        dialect: Text format of calls and answers; None: Hermes.
        exchange: This process's connection to the store, if other processes play some roles; None: none do.

    Raises:
        ConfigurationError: The calls between the roles form no valid team, a tool does not exist, or two tools or
            roles that one role may call have the same name.
    """

    def __init__(
        self,
        roles: Mapping[str, RoleConfig],
        chats: Mapping[str, Chat],
        samplers: Mapping[str, Sampler],
        tools: Mapping[str, Tool],
        *,
        scheduler: Scheduler,
        seed: int,
        dialect: Dialect | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self.main = main_role(roles)
        self.seats = make_seats(roles, chats, tools, dialect or HermesDialect())
        self._roles = roles
        self._exchange = exchange
        self._samplers = samplers
        self._endpoints = {name: ChatEndpoint(role.endpoint) for name, role in roles.items() if role.endpoint}
        self.scheduler = scheduler
        self._seed = seed
        self._told: set[tuple[str, str, str]] = set()
        """Kinds of tool failures that are logged already."""

    def play(self, request: PlayRequest, on_done: Callable[[], None] | None = None) -> PlayResult:
        """Play every question of a request K times.

        Args:
            request: The questions, and how they are played.
            on_done: Called after each finished rollout.

        Returns:
            The groups, not scored yet; the idle time; the counts; and the delegations between processes.
        """
        rollouts: dict[tuple[int, int], RolloutPlay] = {}

        async def answer(call: Record) -> Trajectory:
            return await rollouts[call.key.query, call.key.rollout].serve(call)

        remote = self._remote(request, answer)
        play = self._play(request, remote)
        for one in self._rollouts(play):
            rollouts[one.place] = one
        self.scheduler.play(self._agents(play, [*rollouts.values()]), on_done, remote, request.background)
        if remote is not None:
            remote.finish()
        return PlayResult(
            _groups(request, list(rollouts.values())),
            idle=self.scheduler.idle,
            counts={"tool_failures": play.breakdowns.count},
            delegations={} if remote is None else remote.delegations,
        )

    async def join(self, request: PlayRequest) -> list[Group]:
        """Play a request inside of a play that is running already, in the event loop of its agents.

        Args:
            request: The questions, and how they are played. It has no background work.

        Returns:
            The groups, not scored.
        """
        assert self._exchange is None, "a process that plays some of the roles cannot answer alone"
        play = self._play(request, None)
        rollouts = self._rollouts(play)
        agents = [self.scheduler.spawn(agent) for agent in self._agents(play, rollouts)]
        try:
            await asyncio.gather(*agents)
        finally:
            for agent in agents:
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)
        return _groups(request, rollouts)

    def _rollouts(self, play: Play) -> list[RolloutPlay]:
        """The rollouts of a request, those of each question side by side."""
        return [
            RolloutPlay(play, question, query=query, rollout=k)
            for query, question in zip(play.request.queries, play.request.questions, strict=True)
            for k in range(play.request.rollouts)
        ]

    def _play(self, request: PlayRequest, remote: RemoteCalls | None) -> Play:
        samplers, resume_log = self._samplers, request.resume_log
        if resume_log is not None:
            samplers = {name: ResumedSampler(sampler, resume_log) for name, sampler in samplers.items()}
        return Play(
            request,
            seats=self.seats,
            samplers=samplers,
            endpoints=self._endpoints,
            scheduler=self.scheduler,
            seed=self._seed,
            # A kind of failure is logged once for the team, and counted in each play.
            breakdowns=Breakdowns(self._told),
            remote=remote,
        )

    def _agents(self, play: Play, rollouts: Sequence[RolloutPlay]) -> list[Coroutine[Any, Any, object]]:
        """Main's agent of each rollout; or the one agent that serves the calls, if another process plays main."""
        if self.main not in self.seats:
            assert play.remote is not None, "somebody plays main"
            # Main's trajectory must exist here without spans, as invocation 0 of the rollout.
            for one in rollouts:
                one.open(self.main, one.question.text, parent=None)
            return [play.remote.serve()]
        conversations: list[Conversation | None] = [None] * len(rollouts)
        # Only main's prompts are known now; agents of other roles open their conversations when they are called.
        if play.request.script is None and self.main not in self._endpoints:
            conversations = [
                conversation
                for query, question in zip(play.request.queries, play.request.questions, strict=True)
                for conversation in self._openings(play, question, query)
            ]
        return [one.main(self.main, conversation) for one, conversation in zip(rollouts, conversations, strict=True)]

    def _remote(self, request: PlayRequest, answer: Callable[[Record], Awaitable[Trajectory]]) -> RemoteCalls | None:
        if self._exchange is None:
            return None
        return RemoteCalls(self._exchange, self.scheduler, self._roles, set(self.seats), request, answer)

    def _openings(self, play: Play, question: Question, query: int) -> Sequence[Conversation | None]:
        """The K conversations of a group. They share one prompt, which is prefilled once."""
        ids, _ = self.seats[self.main].prompt(question.text)
        return play.samplers[self.main].open(ids, (query,)).fork(play.request.rollouts)


def _groups(request: PlayRequest, rollouts: Sequence[RolloutPlay]) -> list[Group]:
    k = request.rollouts
    return [
        Group(question, [one.rollout() for one in rollouts[index * k : (index + 1) * k]])
        for index, question in enumerate(request.questions)
    ]


def make_seats(
    roles: Mapping[str, RoleConfig], chats: Mapping[str, Chat], tools: Mapping[str, Tool], dialect: Dialect
) -> dict[str, Seat]:
    """Make the seats of the roles that have a chat, which are those that this process plays.

    Args:
        roles: Configuration of every role of the team, by name.
        chats: Chat template and tokenizer, by role.
        tools: Tools by the names that the roles' ``tools`` use.
        dialect: Text format of calls and answers.

    Raises:
        ConfigurationError: The calls between the roles form no valid team, a tool does not exist, or two tools or
            roles that one role may call have the same name.
    """
    main = main_role(roles)
    # Only main and its equals discuss; all other roles are sub-agents.
    equals = [main, *roles[main].discusses_with]
    return {
        name: Seat(
            name,
            role,
            chats[name],
            _tools(name, role, tools),
            {callee: roles[callee] for callee in role.calls},
            dialect,
            equals=[other for other in equals if name in equals and other != name],
        )
        for name, role in roles.items()
        if name in chats
    }


def _tools(name: str, role: RoleConfig, offered: Mapping[str, Tool]) -> dict[str, Tool]:
    for wanted in role.tools:
        if wanted not in offered:
            raise ConfigurationError(
                f"role {name!r} has tool {wanted!r}, which does not exist.", hint=f"use one of {sorted(offered)}."
            )
    tools = [offered[wanted] for wanted in role.tools]
    check_tools(name, [tool.name for tool in tools], role.calls)
    # A team file may name a tool by its dotted path; a call uses the tool's own name.
    return {tool.name: tool for tool in tools}
