"""Factbook: the task class: questions by split, exact match, expert score by visited pages, tools, demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.ranges import Count, Range, Seed, Share, ranged
from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.records.trajectory import Trajectory
from mgrpo_lightning.tasks.answer_rules import exact_match
from mgrpo_lightning.tasks.base import Script, Task
from mgrpo_lightning.tasks.factbook.comparing import parse_comparison, with_more
from mgrpo_lightning.tasks.factbook.demonstrator import Demonstrator
from mgrpo_lightning.tasks.factbook.facts import facts_of
from mgrpo_lightning.tasks.factbook.paths import MAX_HOPS
from mgrpo_lightning.tasks.factbook.questions import generate
from mgrpo_lightning.tasks.factbook.split import ORDER, split_of
from mgrpo_lightning.tasks.factbook.world import load_world
from mgrpo_lightning.tools.base import Tool

Hops = Annotated[int, Range(1, MAX_HOPS)]


@ranged("task")
class Factbook(Task):
    """Questions over the vendored Factbook snapshot, split by the country of the answer.

    Every split has the same number of questions of each level. Any prefix of a split has the same mix of levels.

    Args:
        hops: Numbers of hops of the questions, each from 1 to 4.
        comparisons: Whether to include questions such as "Which has the larger area, A or B?".
        max_questions: Maximum number of questions of a split; None is as many as equal levels allow.
        seed: Seed of the questions' selection, order and wording; the split of the countries is fixed.
        backend: Name of the search backend.
        mistakes: Probability of each mistake of the demonstrator (see ``demonstrator.MISTAKES``); default none.

    Raises:
        ConfigurationError: An argument is out of range.
    """

    def __init__(
        self,
        hops: Sequence[Hops] = (1, 2),
        comparisons: bool = False,
        max_questions: Count | None = None,
        seed: Seed = 0,
        backend: str = "fts5",
        mistakes: dict[str, Share] | None = None,
    ) -> None:
        _check(hops, comparisons)
        world = load_world()
        self.facts = facts_of(world)
        self._tools = world.tools(backend)
        self._demonstrator = Demonstrator(mistakes, closed=held_out())
        self._hops = tuple(hops)
        self._comparisons = comparisons
        self._max_questions = max_questions
        self._seed = seed
        self._generated: dict[Split, Sequence[Question]] = {}

    @override
    def questions(self, split: Split) -> Sequence[Question]:
        if split not in ORDER:
            raise ConfigurationError(f"the Factbook has no split {split!r}.", hint=f"give one of {list(ORDER)}.")
        if split not in self._generated:
            found = generate(
                self.facts, hops=self._hops, with_comparisons=self._comparisons, seed=self._seed, split=split
            )
            self._generated[split] = found[: self._max_questions]
        return self._generated[split]

    def countries(self, split: Split) -> list[str]:
        """Return the URLs of a split's countries; the answers of its questions are about these countries."""
        return [url for url in self.facts.countries if split_of(url) == split]

    @property
    @override
    def terms(self) -> str:
        return "public domain (The World Factbook of the CIA)"

    @override
    async def correct(self, question: Question, answer: str | None) -> float:
        return exact_match(answer, question.answers)

    @override
    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        """Return 1.0 if the subtask was done, else 0.0.

        A searcher succeeds if its report equals the value of a hop of the gold path and it visited that hop's page. A
        comparer succeeds if it names the country with the larger of the two numbers in its subtask.
        """
        if (values := parse_comparison(trajectory.task)) is not None:
            more = with_more(values)
            return exact_match(trajectory.answer, [] if more is None else [more])
        visits = [call for call in trajectory.calls if call.name == "visit" and not call.failed]
        # A right report without the visit scores 0: the policy may have known or guessed the value.
        visited = {str(call.arguments.get("url", "")).strip() for call in visits}
        return exact_match(trajectory.answer, [hop.value for hop in question.evidence if hop.url in visited])

    @override
    def tools(self) -> Mapping[str, Tool]:
        return self._tools

    @override
    def script(self, question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]) -> Script:
        return self._demonstrator.script(question, role, subtask, seed, callees=callees)


def held_out() -> frozenset[str]:
    """Return the URLs of the validation and test countries; training must never show these pages."""
    return frozenset(url for url in load_world().pages if split_of(url) != "train")


def _check(hops: Sequence[int], comparisons: bool) -> None:
    if len(set(hops)) < len(hops):
        raise ConfigurationError(f"hops {list(hops)} has a number twice.", hint="give every number once.")
    if not hops and not comparisons:
        raise ConfigurationError(
            "no questions: hops is empty and comparisons is off.", hint="set hops, for instance to [1, 2]."
        )
