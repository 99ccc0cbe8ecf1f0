"""Team: plays K rollouts of each question concurrently and returns them as groups."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mgrpo_lightning.agents.breakdowns import Breakdowns
from mgrpo_lightning.agents.remote import RemoteCalls
from mgrpo_lightning.agents.rollout import Play, RolloutPlay, Scripts, Stage
from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.names import check_tools
from mgrpo_lightning.persistence.resume_log import OpenStep
from mgrpo_lightning.policy.sampling.base import Conversation, Sampler
from mgrpo_lightning.policy.sampling.remembering import RememberingSampler
from mgrpo_lightning.protocol.actions import Dialect, HermesDialect
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.roles.config import RoleConfig, main_role
from mgrpo_lightning.services.endpoint import ChatEndpoint
from mgrpo_lightning.tools.base import Tool

if TYPE_CHECKING:
    from mgrpo_lightning.policy.chat import Chat
    from mgrpo_lightning.policy.sampling.scheduler import Scheduler
    from mgrpo_lightning.store.exchange import Exchange


class Team:
    """All roles of a team, ready to play.

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
        self.remote: RemoteCalls | None = None
        """Calls to and from other processes in the current or last play."""
        self._roles = roles
        self._exchange = exchange
        self._samplers = samplers
        self._endpoints = {name: ChatEndpoint(role.endpoint) for name, role in roles.items() if role.endpoint}
        self._scheduler = scheduler
        self._seed = seed
        self._breakdowns = Breakdowns()

    def play(
        self,
        questions: Sequence[Question],
        *,
        step: int,
        rollouts: int,
        stage: Stage = "train",
        first_query: int = 0,
        temperature: float | None = None,
        script: Scripts | None = None,
        memory: OpenStep | None = None,
        on_done: Callable[[], None] | None = None,
        meanwhile: Callable[[], bool] | None = None,
    ) -> list[Group]:
        """Play every question ``rollouts`` times.

        Args:
            questions: The questions that main answers.
            step: Step number, part of every key and random stream.
            rollouts: K, the number of rollouts of each question.
            stage: Purpose of the play, part of every random stream.
            first_query: Index of the first question within the step.
            temperature: Sampling temperature of all roles, 0 for greedy; None: each role uses its own.
            script: Demonstrators that play instead of the policies; no sampler is used then.
            memory: Resume log of this step; turns and calls recorded in it are not played again.
            on_done: Called after each finished rollout.
            meanwhile: Background work, called for one piece at a time while there is nothing to compute; see
                ``Scheduler.play``.

        Returns:
            One group of K rollouts for each question, in order; not scored yet.
        """
        samplers = self._samplers
        if memory is not None:
            samplers = {name: RememberingSampler(sampler, memory) for name, sampler in samplers.items()}
        remote = self.remote = self._remote(stage, step, range(first_query, first_query + len(questions)), memory)
        # Only the count starts again: a kind of failure is logged once for the team, not once for each play.
        self._breakdowns.count = 0
        play = Play(
            seats=self.seats,
            samplers=samplers,
            endpoints=self._endpoints,
            scheduler=self._scheduler,
            seed=self._seed,
            step=step,
            stage=stage,
            temperature=temperature,
            scripts=script,
            breakdowns=self._breakdowns,
            memory=memory,
            remote=remote,
        )
        plays = [
            RolloutPlay(play, question, query=query, rollout=k)
            for query, question in enumerate(questions, first_query)
            for k in range(rollouts)
        ]
        if self.main in self.seats:
            conversations: list[Conversation | None] = [None] * len(plays)
            # Only main's prompts are known now; agents of other roles open their conversations when they are called.
            if script is None and self.main not in self._endpoints:
                conversations = [
                    conversation
                    for query, question in enumerate(questions, first_query)
                    for conversation in self._openings(play, question, query, rollouts)
                ]
            agents: list[Coroutine[Any, Any, object]] = [
                one.main(self.main, conversation) for one, conversation in zip(plays, conversations, strict=True)
            ]
        else:
            assert remote is not None, "somebody plays main"
            # Another process plays main. Its trajectory must exist here without spans, as invocation 0 of the rollout.
            for one in plays:
                one.open(self.main, one.question.text, parent=None)
            places = {one.place: one for one in plays}
            remote.answer = lambda call: places[call.key.query, call.key.rollout].serve(call)
            agents = [remote.serve()]
        self._scheduler.play(agents, on_done, remote, meanwhile)
        if remote is not None:
            remote.finish()
        played = [one.rollout() for one in plays]
        return [Group(question, played[i * rollouts : (i + 1) * rollouts]) for i, question in enumerate(questions)]

    @property
    def idle(self) -> float:
        """Seconds of the last play in which the process computed nothing."""
        return self._scheduler.idle

    @property
    def tool_failures(self) -> int:
        """Number of calls in the last play that ended in a tool breakdown."""
        return self._breakdowns.count

    def _remote(self, stage: Stage, step: int, queries: range, memory: OpenStep | None) -> RemoteCalls | None:
        if self._exchange is None:
            return None
        return RemoteCalls(
            self._exchange,
            self._scheduler,
            self._roles,
            set(self.seats),
            stage=stage,
            step=step,
            queries=queries,
            memory=memory,
        )

    def _openings(self, play: Play, question: Question, query: int, rollouts: int) -> Sequence[Conversation | None]:
        """The K conversations of a group. They share one prompt, which is prefilled once."""
        ids, _ = self.seats[self.main].prompt(question.text)
        return play.samplers[self.main].open(ids, (query,)).fork(rollouts)


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
                f"role {name!r} has tool {wanted!r}, which does not exist.", hint=f"the tools are {sorted(offered)}."
            )
    tools = [offered[wanted] for wanted in role.tools]
    check_tools(name, [tool.name for tool in tools], role.calls)
    # A team file may name a tool by its dotted path; a call uses the tool's own name.
    return {tool.name: tool for tool in tools}
