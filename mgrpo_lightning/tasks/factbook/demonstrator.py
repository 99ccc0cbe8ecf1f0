"""Demonstrator: scripts of how main, searcher and comparer should act on the Factbook, with optional mistakes.

A plan is a generator. It yields the agent's turns and receives the observations. It knows which lookups the question
needs, but not their results: all results come from the real tools.

The mistakes; a trajectory makes each of them always or never:

- ``first_hit``: the searcher opens the first search hit, even if it does not fit.
- ``first_line``: the searcher reports the first fact of the page that it opened.
- ``stop_early``: main answers with the first report, although the question needs more lookups.
- ``whole_question``: main delegates the whole question as one subtask; the searcher does its first lookup only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping, Sequence

from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall
from mgrpo_lightning.protocol.prompts import LastMessage, results
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Message
from mgrpo_lightning.tasks.base import HEAD, Script
from mgrpo_lightning.tasks.factbook.comparing import comparison_subtask, parse_comparison
from mgrpo_lightning.tasks.factbook.extract import number
from mgrpo_lightning.tasks.factbook.paths import COMPARISON
from mgrpo_lightning.tasks.factbook.reading import NOT_FOUND, Finding, Hit, parse_hits, read_fact, read_first_line
from mgrpo_lightning.tasks.factbook.relations import Lookup, lookup, parse_subtask

MISTAKES = ("first_hit", "first_line", "stop_early", "whole_question")

MAX_VISITS = 3
"""Maximum number of pages that a searcher opens for one search, if several hits fit."""

Plan = Generator[str, str, Finding]
"""Generator that yields turns, receives observations, and returns what it found."""

NOTHING = Finding(NOT_FOUND)


class Demonstrator:
    """Makes the scripts of all roles.

    Args:
        mistakes: Probability of each mistake per trajectory; default none.
        closed: URLs of held-out pages. The demonstrator never opens them, so training cannot learn from them. The
            exception is a question whose gold path itself contains one of them.

    Raises:
        ConfigurationError: A mistake does not exist, or its probability is outside [0, 1].
    """

    def __init__(self, mistakes: Mapping[str, float] | None = None, closed: frozenset[str] = frozenset()) -> None:
        self.mistakes = dict(mistakes or {})
        self._closed = closed
        for name, probability in self.mistakes.items():
            if name not in MISTAKES:
                raise ConfigurationError(f"mistakes has the unknown name {name!r}.", hint=f"use {list(MISTAKES)}.")
            if not 0 <= probability <= 1:
                raise ConfigurationError(
                    f"mistake {name!r} has probability {probability}.", hint="give a number from 0 to 1."
                )

    def script(self, question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]) -> Script:
        """Return the script of one trajectory.

        A role with callees splits the question into lookups. It delegates the lookups to the first callee and the
        comparison to the second, if there is one. ``main`` without callees does all lookups itself. Any other role
        does its subtask.

        Args:
            question: Question that main was asked.
            role: Role of the trajectory; ``main`` for an agent that answers the question itself.
            subtask: Text that the role was given.
            seed: Seed that decides which mistakes the trajectory makes.
            callees: Roles that this role may delegate to.
        """
        # One generator for each mistake: changing one probability does not change the draws of the others.
        made = {name for name, p in self.mistakes.items() if random.Random(f"{seed} {name}").random() < p}
        if callees and "whole_question" in made:
            return _PlannedScript(lambda: _delegate(callees[0], question.text))
        if callees:
            comparer = callees[1] if len(callees) > 1 else None
            return _PlannedScript(
                lambda: _answer(question, made, lambda step: _delegate(callees[0], step.subtask), comparer)
            )
        crossed = any(hop.url in self._closed for hop in question.evidence)
        closed = frozenset[str]() if crossed else self._closed
        if role == HEAD:
            return _PlannedScript(lambda: _answer(question, made, lambda step: _look_up(step, made, closed)))
        if (values := parse_comparison(subtask)) is not None:
            return _PlannedScript(lambda: _say_which(values))
        # Main made the mistake ``whole_question`` if the subtask is the question itself.
        asked = lookup(question.evidence[0]) if subtask == question.text else parse_subtask(subtask)
        return _PlannedScript(lambda: _report(subtask, asked, made, closed))


class _PlannedScript(Script):
    """Follows a plan; if only an answer is legal and the plan is not finished, it answers ``not found``.

    At every turn, the plan runs again from its start on the messages so far. So a reply depends on the messages only.
    """

    def __init__(self, plan: Callable[[], Plan]) -> None:
        self._plan = plan

    @override
    def reply(self, messages: Sequence[Message]) -> str:
        plan = self._plan()
        try:
            turn = next(plan)
            for result in results(messages):
                turn = plan.send(result)
        except StopIteration as found:
            return _say(Action(found.value.quote, answer=found.value.value))
        return _say(Action(answer=NOT_FOUND)) if isinstance(messages[-1], LastMessage) else turn


def _answer(question: Question, made: set[str], find: Callable[[Lookup], Plan], comparer: str | None = None) -> Plan:
    """Do the lookups in order; each is about the value that the one before found."""
    if question.level == COMPARISON:
        return (yield from _compare(question, find, comparer))
    found = None
    for step in map(lookup, question.evidence):
        found = yield from find(step.about(found.value) if found else step)
        if found == NOTHING or "stop_early" in made:
            break
    assert found is not None, f"question {question.id!r} has no gold path"
    return found


def _compare(question: Question, find: Callable[[Lookup], Plan], comparer: str | None) -> Plan:
    """Look up both values; then let the comparer compare them, or compare them here if there is no comparer."""
    values = {}
    for step in map(lookup, question.evidence):
        found = yield from find(step)
        if not any(character.isdigit() for character in found.value):  # not a value: a report such as "not found"
            return NOTHING
        values[step.subject] = found.value
    if comparer is not None:
        return (yield from _delegate(comparer, comparison_subtask(values)))
    return Finding(max(values, key=lambda subject: number(values[subject])))


def _say_which(values: Mapping[str, str]) -> Plan:
    """Do a comparer's subtask: call the tool ``larger``, and name the country of the value that it returns."""
    first, second = values.values()
    said = yield _call("larger", first=first, second=second)
    return next((Finding(name) for name, value in values.items() if said == f"{value} is more."), NOTHING)


def _delegate(callee: str, subtask: str) -> Plan:
    report = yield _call(callee, task=subtask)
    return NOTHING if report.startswith("error:") else Finding(report)


def _report(subtask: str, asked: Lookup | None, made: set[str], closed: frozenset[str]) -> Plan:
    """Do a searcher's subtask; if its wording matches no lookup, search for it once and report ``not found``."""
    if asked is not None:
        return (yield from _look_up(asked, made, closed))
    yield _call("search", query=subtask)
    return NOTHING


def _look_up(step: Lookup, made: set[str], closed: frozenset[str]) -> Plan:
    """Search, open the hits that fit and read the fact; if it is not found, search again with the page's own words."""
    for query in (step.query, step.other_query):
        shown = parse_hits((yield _call("search", query=query)))
        hits = [hit for hit in shown if hit.url not in closed]
        fitting = hits[:1] if "first_hit" in made else [hit for hit in hits if _fits(hit, step)][:MAX_VISITS]
        for hit in fitting:
            text = yield _call("visit", url=hit.url, section=hit.field)
            found = read_first_line(text) if "first_line" in made else read_fact(text, step)
            # The first hit often lacks the fact; a careless searcher then reports something else from the page.
            if found is None and "first_hit" in made:
                found = read_first_line(text)
            if found is not None:
                return found
    return NOTHING


def _fits(hit: Hit, step: Lookup) -> bool:
    """Whether a hit can hold the fact: field and country match. In an inverse lookup the country is not known yet."""
    return hit.heading == step.relation.place and (step.inverse or hit.title.casefold() == step.subject.casefold())


def _call(name: str, **arguments: object) -> str:
    return _say(Action(calls=(ToolCall(name, arguments),)))


def _say(action: Action) -> str:
    return HermesDialect().render(action)
