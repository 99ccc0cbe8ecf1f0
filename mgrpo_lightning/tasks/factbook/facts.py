"""Facts of a world by country and relation: links between countries, values that identify one, confusable values."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from mgrpo_lightning.records.question import Evidence
from mgrpo_lightning.tasks.factbook.relations import INVERSE, RELATIONS, Relation
from mgrpo_lightning.tasks.factbook.world import Page, World

NO_COUNTRIES = frozenset({"factbook/world", "factbook/european-union"})
"""Pages that are not countries; no question is about them."""
SHORT = 6
"""Names shorter than this many letters count as different even if they differ in one letter only."""


@dataclass(frozen=True, slots=True)
class Fact:
    """The value of one relation of one country, as written on the country's page."""

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
    """The facts of a world, by country and relation."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.countries = sorted(url for url in world.pages if url not in NO_COUNTRIES)
        self._by_key: dict[tuple[str, str], Fact] = {}
        for relation in RELATIONS.values():
            for url in self.countries:
                if (fact := _fact(world, world[url], relation)) is not None:
                    self._by_key[url, relation.name] = fact

    def get(self, url: str, relation: str) -> Fact | None:
        """Return the fact of a country; None if it has no exact answer."""
        return self._by_key.get((url, relation))

    def of(self, relation: str) -> list[Fact]:
        """Return all facts of a relation, sorted by URL."""
        return [fact for (_, name), fact in self._by_key.items() if name == relation]

    def follow(self, url: str, relation: str) -> tuple[Fact, str] | None:
        """Return the fact that links a country to another country, and the URL of the other; None if there is none."""
        fact = self.get(url, relation)
        target = self.world.url(fact.value) if fact else None
        return (fact, target) if fact and target and target not in (url, *NO_COUNTRIES) else None

    @functools.cached_property
    def identifying(self) -> Mapping[str, list[Fact]]:
        """Facts that identify a country by their value, by URL of the country.

        A value identifies a country if no other page contains it anywhere in the line of this relation, whether or not
        that line has an exact answer. A value that contains the country's name is excluded: it gives the answer away.
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

    @functools.cached_property
    def twins(self) -> frozenset[Fact]:
        """Identifying facts with a value that a reader may confuse with another page's value.

        Either another page has the same value up to accents, or it has a value that differs in at most one letter,
        ignoring spaces, such as ``George Town`` and ``Georgetown``. Numbers and short names are not compared in this
        way: Rome is not Lome.
        """
        found: set[Fact] = set()
        identifying = [fact for facts in self.identifying.values() for fact in facts]
        for relation in filter(lambda relation: relation.clause, RELATIONS.values()):
            entries = {page.url: relation.entry(page) for page in self.world.pages.values()}
            lines = {url: _unaccented(entry.text) for url, entry in entries.items() if entry}
            names = {fact.url: _letters(fact.value) for fact in self.of(relation.name)}
            for fact in (fact for fact in identifying if fact.relation == relation.name):
                value, name = _unaccented(fact.value), names[fact.url]
                long = name.isalpha() and len(name) >= SHORT
                if any(value in line for url, line in lines.items() if url != fact.url) or (
                    long and any(_one_apart(name, other) for url, other in names.items() if url != fact.url)
                ):
                    found.add(fact)
        return frozenset(found)


@functools.cache
def facts_of(world: World) -> Facts:
    """Return the facts of a world; cached, so all callers share one copy."""
    return Facts(world)


def _unaccented(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def _letters(text: str) -> str:
    return "".join(character for character in _unaccented(text) if character.isalnum())


def _one_apart(one: str, other: str) -> bool:
    """Whether two texts are equal or differ by one inserted, removed or changed letter."""
    # `same` is the length of the common prefix. After the one letter that differs, the rests must be equal.
    short, long = sorted((one, other), key=len)
    same = next((i for i, pair in enumerate(zip(short, long, strict=False)) if pair[0] != pair[1]), len(short))
    rest = short[same + 1 :] if len(short) == len(long) else short[same:]
    return len(long) - len(short) <= 1 and rest == long[same + 1 :]


def _fact(world: World, page: Page, relation: Relation) -> Fact | None:
    value = relation.value(page)
    if value is None or (relation.link and world.url(value) is None):
        return None
    entry = relation.entry(page)
    assert entry is not None
    # A policy copies answers from the page, so every value must stand there literally.
    assert value in entry.line.split("\n")[0], f"{value!r} cannot be copied from {entry.line!r}"
    return Fact(page.url, page.title, relation.name, value)
