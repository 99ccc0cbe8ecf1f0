"""Stand-ins for the policy side: a byte-level chat, a sampler that speaks from a function, a plain scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.algorithm.config import RewardConfig
from mgrpo_lightning.errors import ScoringError
from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, SamplingParams
from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall
from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.records.trajectory import Trajectory
from mgrpo_lightning.roles.config import LimitsConfig, RoleConfig
from mgrpo_lightning.tasks.base import Task

T = TypeVar("T")
START, END, OTHER = 256, 257, 258
"""Control tokens; the last one ends a turn too where the chat's ``stop_ids`` have it. Spoken as a character each."""


class FakeChat:
    """ids are UTF-8 bytes; 256 and 257 stand around a message."""

    end_id = END
    stop_ids = (END,)
    specials = {"<start>": START, "<end>": END, "<other>": OTHER}  # noqa: RUF012 - never changed

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_action(self, text: str) -> list[int]:
        return [*text.encode(), END]

    def decode_action(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < START).decode(errors="replace")

    def open(self, system: str, user: str) -> list[int]:
        return [START, *self.encode(f"S{system}"), END, START, *self.encode(f"U{user}"), END, START]

    def observe(self, results: Sequence[str], *, after_cut: bool) -> list[int]:
        return [*[END] * after_cut, *(i for result in results for i in (START, *self.encode(f"T{result}"), END)), START]

    def cut(self, text: str, max_tokens: int) -> str:
        return text if len(text.encode()) <= max_tokens else text.encode()[:max_tokens].decode(errors="ignore")


Speak = Callable[[str, int, tuple[int, ...]], str]
"""(task, turn, order) to the text of the turn; a text that ends with ``...`` is cut there."""


@dataclass
class FakeConversation:
    """Remembers the ids it saw and made."""

    sampler: FakeSampler
    ids: list[int]
    order: tuple[int, ...]
    turns: int = 0
    closed: bool = False
    params: list[SamplingParams] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def task(self) -> str:
        user = self.ids[self.ids.index(START, 1) + 1 :]
        return bytes(user[: user.index(END)]).decode()[1:]

    def extend(self, ids: Sequence[int]) -> None:
        self.ids += ids
        self.turns += ids[-1] == END  # a turn that is said again, as an observation ends with START

    async def sample(self, params: SamplingParams, stream: int) -> SampledTurn:
        assert not self.closed
        self.params.append(params)
        self.streams.append(stream)
        await self.sampler.delay(self)
        text = self.sampler.speak(self.task, self.turns, self.order)
        self.turns += 1
        ids = [i for word in text for i in ([ord(word)] if ord(word) in (START, OTHER) else word.encode())]
        ids += [] if text.endswith(("...", chr(OTHER))) else [END]
        kept = tuple(ids[: params.max_new_tokens])
        self.ids += kept
        logprobs = tuple(-0.5 - position / 16 for position in range(len(kept)))
        stopped = bool(kept) and kept[-1] in params.stop_ids
        return SampledTurn(kept, logprobs, stopped=stopped, version=self.sampler.version)

    def fork(self, n: int) -> list[Conversation]:
        children = [FakeConversation(self.sampler, list(self.ids), (*self.order, k)) for k in range(n)]
        self.sampler.opened += children
        self.sampler.opened.remove(self)
        return list[Conversation](children)

    def close(self) -> None:
        self.closed = True


class FakeSampler:
    """Says what ``speak`` says."""

    def __init__(self, speak: Speak, *, version: int = 0, delay: Callable[[], float] | None = None) -> None:
        self.speak = speak
        self.version = version
        self._delay = delay
        self.opened: list[FakeConversation] = []
        self.prompts: list[tuple[int, ...]] = []

    async def delay(self, conversation: FakeConversation) -> None:
        await asyncio.sleep(self._delay() if self._delay else 0)

    def open(self, ids: Sequence[int], order: tuple[int, ...]) -> Conversation:
        self.prompts.append(order)
        conversation = FakeConversation(self, list(ids), order)
        self.opened.append(conversation)
        return conversation


class FakeScheduler:
    """Everything at once, in one event loop."""

    waiting = 0
    idle = 0.0

    def play(
        self,
        coroutines: Sequence[Coroutine[Any, Any, T]],
        on_done: Callable[[], None] | None = None,
        link: object | None = None,
        background: Callable[[], bool] | None = None,
    ) -> list[T]:
        assert link is None
        assert background is None

        async def one(coroutine: Coroutine[Any, Any, T]) -> T:
            result = await coroutine
            if on_done:
                on_done()
            return result

        async def run() -> list[T]:
            return await asyncio.gather(*(one(coroutine) for coroutine in coroutines))

        return asyncio.run(run())

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return asyncio.ensure_future(coroutine)

    @contextmanager
    def blocked(self) -> Iterator[None]:
        self.waiting += 1
        yield
        self.waiting -= 1


@dataclass
class FakeTool:
    """A tool of one string argument ``query``."""

    run: Callable[[str], Awaitable[str]]
    name: str = "search"
    description: str = "Finds pages."

    parameters: dict[str, object] = field(
        default_factory=lambda: {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    )

    async def __call__(self, **arguments: object) -> str:
        return await self.run(str(arguments["query"]))


async def echo(query: str) -> str:
    return f"page of {query}"


def call(name: str, **arguments: object) -> str:
    return HermesDialect().render(Action(calls=(ToolCall(name, dict(arguments)),)))


def answer(text: str) -> str:
    return f"<answer>{text}</answer>"


def limits(**changes: int) -> LimitsConfig:
    return LimitsConfig(
        **({"turns": 6, "new_tokens": 400, "calls": 8, "context": 10_000, "observation": 200} | changes)
    )


def duo(*, main: LimitsConfig | None = None, searcher: LimitsConfig | None = None) -> dict[str, RoleConfig]:
    """Main delegates to a searcher, which has one tool."""
    return {
        "main": RoleConfig(
            "fake",
            calls=["searcher"],
            system_prompt="plan",
            limits=main or limits(),
            reward=RewardConfig(format=0.1, correct=0.9),
        ),
        "searcher": RoleConfig(
            "fake",
            tools=["search"],
            system_prompt="find",
            limits=searcher or limits(),
            reward=RewardConfig(format=0.1, correct_main=0.4, expert=0.5),
        ),
    }


def make_team(
    roles: Mapping[str, RoleConfig],
    speakers: Mapping[str, Speak],
    tools: Mapping[str, object] | None = None,
    *,
    scheduler: object | None = None,
    delay: Callable[[], float] | None = None,
    seed: int = 0,
) -> tuple[Players, dict[str, FakeSampler]]:
    samplers = {role: FakeSampler(speak, delay=delay) for role, speak in speakers.items()}
    team = Players(
        roles,
        cast("Any", {role: FakeChat() for role in roles}),
        samplers,
        cast("Any", {"search": FakeTool(echo)} if tools is None else tools),
        scheduler=cast("Any", scheduler or FakeScheduler()),
        seed=seed,
    )
    return team, samplers


def question(text: str = "Which?", *answers: str) -> Question:
    return Question(f"id-{text}", text, answers or ("yes",))


class FakeTask(Task):
    """Right is the first accepted answer; ``judge`` says how well a subtask was done. ``broken`` ones cannot decide."""

    def __init__(self, *, broken: Sequence[str] = (), judge: Callable[[Trajectory], float] = lambda _: 0.5) -> None:
        self.broken = broken
        self.judge = judge
        self.asked: list[str] = []

    def questions(self, split: Split) -> Sequence[Question]:
        return []

    async def correct(self, question: Question, answer: str | None) -> float:
        self.asked.append("correct")
        if "correct" in self.broken:
            raise ScoringError("the judge is ill.")
        return float(answer == question.answers[0])

    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        self.asked.append("expert")
        if "expert" in self.broken:
            raise ScoringError("the judge is ill.")
        return self.judge(trajectory)


def play(
    turns: Sequence[str], *, budget: LimitsConfig | None = None, tool: FakeTool | None = None, tools: bool = True
) -> tuple[Trajectory, FakeConversation]:
    """A team of one, which says ``turns`` one after the other and then answers."""
    role = RoleConfig("fake", tools=["search"] if tools else [], system_prompt="find", limits=budget or limits())
    said = [*turns, *[answer("end")] * 20]
    team, samplers = make_team(
        {"main": role}, {"main": lambda _, turn, __: said[turn]}, {"search": tool or FakeTool(echo)}
    )
    (group,) = team.play(PlayRequest([question()], step=3, rollouts=1)).groups
    return group.rollouts[0].main, samplers["main"].opened[0]


def tool_texts(trajectory: Trajectory) -> list[str]:
    """What the tools of a trajectory have answered, in order."""
    return [message.content for message in trajectory.messages if message.role == "tool"]
