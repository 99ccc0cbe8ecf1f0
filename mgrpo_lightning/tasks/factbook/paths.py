"""Enumerate gold paths, the chains of facts behind questions, by hops, and pairs of countries to compare.

A path starts at a country that the question names, or at a value that identifies a country. It follows links (longest
border, top trade partners) and ends at a fact. Each hop is one lookup: one fact on one page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mgrpo_lightning.records.question import Evidence
from mgrpo_lightning.tasks.factbook.extract import number
from mgrpo_lightning.tasks.factbook.facts import Fact, Facts
from mgrpo_lightning.tasks.factbook.relations import RELATIONS

MAX_HOPS = 4
COMPARISON = "comparison"
MARGIN = 1.1
"""Two values are compared only if their ratio is above this."""


@dataclass(frozen=True, slots=True)
class Path:
    """A chain of facts that leads to an answer."""

    start: Fact | None
    """The fact whose value identifies the first country; None if the question names the country."""
    links: tuple[Fact, ...]
    final: Fact

    @property
    def facts(self) -> tuple[Fact, ...]:
        """All facts on the path, in order."""
        return (*((self.start,) if self.start else ()), *self.links, self.final)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The hops, in order."""
        identified = (self.start.inverse,) if self.start else ()
        return (*identified, *(fact.evidence for fact in (*self.links, self.final)))

    @property
    def kind(self) -> str:
        """Names of all relations except the last; questions of one kind have similar wording."""
        return "/".join([self.start.relation if self.start else "", *(link.relation for link in self.links)])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two facts of one numeric relation, the larger one first."""

    larger: Fact
    smaller: Fact

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Both facts."""
        return (self.larger, self.smaller)

    @property
    def final(self) -> Fact:
        """The larger fact; its country is the answer."""
        return self.larger

    @property
    def kind(self) -> str:
        """Name of the relation."""
        return self.larger.relation


def paths(facts: Facts, hops: int) -> Iterator[Path]:
    """Yield all paths with a number of hops, in a fixed order; a path visits no country twice."""
    for url in facts.countries:
        yield from _from(facts, url, None, hops)
        if hops > 1:
            for start in facts.identifying[url]:
                yield from _from(facts, url, start, hops - 1)


def comparisons(facts: Facts) -> Iterator[Comparison]:
    """Yield all pairs of countries with clearly different values of a comparable relation."""
    for relation in RELATIONS.values():
        if relation.compare:
            ranked = sorted(facts.of(relation.name), key=lambda fact: -number(fact.value))
            for i, larger in enumerate(ranked):
                for smaller in ranked[i + 1 :]:
                    # Above 0: for values of 0 and below, a ratio says nothing.
                    if number(larger.value) > MARGIN * number(smaller.value) > 0:
                        yield Comparison(larger, smaller)


def _from(facts: Facts, url: str, start: Fact | None, hops: int) -> Iterator[Path]:
    """Yield paths of ``hops`` facts that start at a country; the final fact must not be ``start``."""
    for links, last in _chains(facts, url, hops - 1, ()):
        for relation in RELATIONS.values():
            final = None if relation.link else facts.get(last, relation.name)
            if final is not None and final is not start:  # else the question would ask for the value that it names
                yield Path(start, links, final)


def _chains(facts: Facts, url: str, length: int, before: tuple[Fact, ...]) -> Iterator[tuple[tuple[Fact, ...], str]]:
    """Yield chains of links that start at a country, with the URL of the country where they end."""
    if not length:
        yield before, url
        return
    for relation in RELATIONS.values():
        step = facts.follow(url, relation.name) if relation.link else None
        if step and step[1] not in {fact.url for fact in before}:  # no circles, such as France > Spain > France
            yield from _chains(facts, step[1], length - 1, (*before, step[0]))
