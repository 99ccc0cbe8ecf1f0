"""The demonstrator: how each role should act on the Factbook, and the mistakes it can be told to make.

A plan is a generator: it yields what the agent says and is sent what the agent is shown. It sees nothing else, except
that it knows which lookups the question needs; all results come from the real tools.

The mistakes, each made in a whole trajectory or not at all:

- ``first_hit``: the searcher opens the first hit, whatever it is.
- ``first_line``: the searcher reports the first fact of what it opened.
- ``stop_early``: main takes the first report for the answer, although the question needs more lookups.
- ``whole_question``: main passes the whole question on as one subtask; the searcher does its first lookup.
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
"""Pages a searcher opens for one search, when the hits do not show which one it is."""

Plan = Generator[str, str, Finding]
"""Yields turns, is sent observations, returns what it found."""

NOTHING = Finding(NOT_FOUND)


class Demonstrator:
    """Writes scripts for all roles.

    Args:
        mistakes: Probability of each mistake per trajectory; none by default.
        closed: URLs that are never opened for a question whose gold path crosses none of them: held-out pages, which
            nobody may learn from.

    Raises:
        ConfigurationError: There is no such mistake, or its probability is none.
    """

    def __init__(self, mistakes: Mapping[str, float] | None = None, closed: frozenset[str] = frozenset()) -> None:
        self.mistakes = dict(mistakes or {})
        self._closed = closed
        for name, probability in self.mistakes.items():
            if name not in MISTAKES:
                raise ConfigurationError(f"there is no mistake {name!r}.", hint=f"give some of {list(MISTAKES)}.")
            if not 0 <= probability <= 1:
                raise ConfigurationError(f"mistake {name!r} has probability {probability}.", hint="give 0 to 1.")

    def script(self, question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]) -> Script:
        """The behaviour for one trajectory.

        A role with callees decomposes the question and delegates every lookup to the first of them, and comparisons
        to the second, if there is one; ``main`` without
        callees, or any of its equals, does all lookups itself; any other role does its subtask.

        Args:
            question: What main was asked.
            role: Who plays the trajectory.
            subtask: What it is asked.
            seed: Decides which mistakes are made.
            callees: Whom the role may delegate to.
        """
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
        asked = lookup(question.evidence[0]) if subtask == question.text else parse_subtask(subtask)
        return _PlannedScript(lambda: _report(subtask, asked, made, closed))


class _PlannedScript(Script):
    """Follows a plan, and gives up where only an answer is legal.

    The plan is run again from its start at every turn, so that a reply depends on the messages alone.
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
    """One lookup after the other, each about what the one before found."""
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
    """Look both values up, and leave the comparison to whoever does them; without one, do it."""
    values = {}
    for step in map(lookup, question.evidence):
        found = yield from find(step)
        if not any(character.isdigit() for character in found.value):
            return NOTHING
        values[step.subject] = found.value
    if comparer is not None:
        return (yield from _delegate(comparer, comparison_subtask(values)))
    return Finding(max(values, key=lambda subject: number(values[subject])))


def _say_which(values: Mapping[str, str]) -> Plan:
    """A comparer's subtask: let the tool compare, and say whose the quantity is that it named."""
    first, second = values.values()
    said = yield _call("larger", first=first, second=second)
    return next((Finding(name) for name, value in values.items() if said == f"{value} is more."), NOTHING)


def _delegate(callee: str, subtask: str) -> Plan:
    report = yield _call(callee, task=subtask)
    return NOTHING if report.startswith("error:") else Finding(report)


def _report(subtask: str, asked: Lookup | None, made: set[str], closed: frozenset[str]) -> Plan:
    """Do a subtask with the tools; one that is worded unlike any lookup is searched for, but not understood."""
    if asked is not None:
        return (yield from _look_up(asked, made, closed))
    yield _call("search", query=subtask)
    return NOTHING


def _look_up(step: Lookup, made: set[str], closed: frozenset[str]) -> Plan:
    """Search, open what fits, read; search once more in the page's own words if nothing did."""
    for query in (step.query, step.other_query):
        shown = parse_hits((yield _call("search", query=query)))
        hits = [hit for hit in shown if hit.url not in closed]
        fitting = hits[:1] if "first_hit" in made else [hit for hit in hits if _fits(hit, step)][:MAX_VISITS]
        for hit in fitting:
            text = yield _call("visit", url=hit.url, section=hit.field)
            found = read_first_line(text) if "first_line" in made else read_fact(text, step)
            if found is None and "first_hit" in made:
                found = read_first_line(text)
            if found is not None:
                return found
    return NOTHING


def _fits(hit: Hit, step: Lookup) -> bool:
    """Whether a hit can hold the fact; whose page an inverse lookup wants, only reading tells."""
    return hit.heading == step.relation.place and (step.inverse or hit.title.casefold() == step.subject.casefold())


def _call(name: str, **arguments: object) -> str:
    return _say(Action(calls=(ToolCall(name, arguments),)))


def _say(action: Action) -> str:
    return HermesDialect().render(action)
