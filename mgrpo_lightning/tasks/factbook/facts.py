"""All facts of a world that have one exact answer, and which of them identify a country."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from mgrpo_lightning.tasks.base import Evidence
from mgrpo_lightning.tasks.factbook.relations import INVERSE, RELATIONS, Relation
from mgrpo_lightning.tasks.factbook.world import Page, World

NO_COUNTRIES = frozenset({"factbook/world", "factbook/european-union"})
"""Pages that no question is about."""


@dataclass(frozen=True, slots=True)
class Fact:
    """The value of one relation of one country, as it stands on the country's page."""

    url: str
    title: str
    relation: str
    value: str

    @property
    def evidence(self) -> Evidence:
        """The hop from the country to the value."""
        return Evidence(self.url, RELATIONS[self.relation].place, self.value, self.title, self.relation)

    @property
    def inverse(self) -> Evidence:
        """The hop from the value to the country."""
        return Evidence(self.url, RELATIONS[self.relation].place, self.title, self.value, INVERSE + self.relation)


class Facts:
    """The facts of a world.

    Args:
        world: Its pages.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.countries = sorted(url for url in world.pages if url not in NO_COUNTRIES)
        self._by_key: dict[tuple[str, str], Fact] = {}
        for relation in RELATIONS.values():
            for url in self.countries:
                if (fact := _fact(world, world[url], relation)) is not None:
                    self._by_key[url, relation.name] = fact

    def get(self, url: str, relation: str) -> Fact | None:
        """The fact of a country, None if it has no exact answer."""
        return self._by_key.get((url, relation))

    def of(self, relation: str) -> list[Fact]:
        """All facts of a relation, by URL."""
        return [fact for (_, name), fact in self._by_key.items() if name == relation]

    def follow(self, url: str, relation: str) -> tuple[Fact, str] | None:
        """The fact that links a country to another one, and the other one's URL."""
        fact = self.get(url, relation)
        target = self.world.url(fact.value) if fact else None
        return (fact, target) if fact and target and target not in (url, *NO_COUNTRIES) else None

    @functools.cached_property
    def identifying(self) -> Mapping[str, list[Fact]]:
        """By country, the facts whose value names no other country's page.

        A value is unique if no other page of the world has it anywhere in the same line, exact or not; a value that
        holds the country's name gives the answer away and identifies nothing.
        """
        found: dict[str, list[Fact]] = {url: [] for url in self.countries}
        for relation in RELATIONS.values():
            if relation.clause:
                entries = {page.url: relation.entry(page) for page in self.world.pages.values()}
                lines = {url: entry.text.casefold() for url, entry in entries.items() if entry}
                for fact in self.of(relation.name):
                    value = fact.value.casefold()
                    shared = any(value in line for url, line in lines.items() if url != fact.url)
                    if not shared and fact.title.casefold() not in value:
                        found[fact.url].append(fact)
        return found


def _fact(world: World, page: Page, relation: Relation) -> Fact | None:
    value = relation.value(page)
    if value is None or (relation.link and world.url(value) is None):
        return None
    entry = relation.entry(page)
    assert entry is not None
    assert value in entry.line.split("\n")[0], f"{value!r} cannot be copied from {entry.line!r}"
    return Fact(page.url, page.title, relation.name, value)
