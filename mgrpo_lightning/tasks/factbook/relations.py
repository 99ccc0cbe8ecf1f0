"""Relations: place on the page, extractor and wording of each kind of fact; Lookup: subtask and query of one hop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mgrpo_lightning.records.question import Evidence
from mgrpo_lightning.tasks.factbook import extract
from mgrpo_lightning.tasks.factbook.extract import Extract
from mgrpo_lightning.tasks.factbook.world import Entry, Page

GEOGRAPHY, PEOPLE, GOVERNMENT = "Geography", "People and Society", "Government"
ECONOMY, COMMUNICATIONS, TRANSPORTATION = "Economy", "Communications", "Transportation"


@dataclass(frozen=True)
class Relation:
    """One kind of fact about a country."""

    name: str
    phrase: str
    """Name of the relation in questions, subtasks and search queries."""
    heading: tuple[str, str, str]
    """(section, field, subfield) of the relation's line on a page."""
    extract: Extract
    """Extracts the answer from the line's text."""
    ask: tuple[str, ...] = ()
    """Question templates about ``{x}``, in addition to ``GENERAL``."""
    clause: str = ""
    """Clause that identifies a country by its value: ``whose capital is {v}``; empty if it cannot."""
    compare: str = ""
    """Question template: which of ``{a}`` and ``{b}`` has more; empty if values are not compared."""
    link: str = ""
    """Description of the value as a country: ``the top export partner of {x}``; empty if it is not a country."""

    unless: str = ""
    """Subfield that makes the fact ambiguous if the same field has it."""

    @property
    def place(self) -> str:
        """Section and field, as a search hit shows them: ``Geography: Elevation``."""
        return f"{self.heading[0]}: {self.heading[1]}"

    def entry(self, page: Page) -> Entry | None:
        """Return the relation's entry on a page, with or without an exact answer."""
        return page.entry(*self.heading)

    def value(self, page: Page) -> str | None:
        """Return the exact answer on a page; None if there is none."""
        entry = self.entry(page)
        if entry is None or (self.unless and page.entry(*self.heading[:2], self.unless)):
            return None
        return self.extract(entry.text)


GENERAL = ("What is the {phrase} of {x}?", "Name the {phrase} of {x}.", "Find the {phrase} of {x}.")
"""Question templates that fit every relation."""

_ATTRIBUTES = (
    Relation(
        "capital",
        "capital",
        (GOVERNMENT, "Capital", "name"),
        extract.one(r"(?:(?! in )[^;,()\d])+"),
        ("Which city is the capital of {x}?",),
        "whose capital is {v}",
    ),
    Relation(
        "highest_point",
        "highest point",
        (GEOGRAPHY, "Elevation", "highest point"),
        extract.place,
        clause="whose highest point is {v}",
    ),
    Relation("lowest_point", "lowest point", (GEOGRAPHY, "Elevation", "lowest point"), extract.place),
    Relation(
        "mean_elevation",
        "mean elevation",
        (GEOGRAPHY, "Elevation", "mean elevation"),
        extract.one(r"[\d,]+ m"),
        compare="Which has the higher mean elevation, {a} or {b}?",
    ),
    Relation(
        "area",
        "area",
        (GEOGRAPHY, "Area", "total"),
        extract.one(r"[\d,.]+ sq km"),
        ("How large is the area of {x}?",),
        compare="Which has the larger area, {a} or {b}?",
    ),
    Relation(
        "coastline",
        "coastline",
        (GEOGRAPHY, "Coastline", ""),
        extract.one(r"[\d,.]*[1-9][\d,.]* km"),  # a digit above 0, because landlocked countries have "0 km"
        ("How long is the coastline of {x}?",),
        compare="Which has the longer coastline, {a} or {b}?",
    ),
    Relation(
        "population",
        "population",
        (PEOPLE, "Population", "total"),
        extract.one(r"\d{1,3}(?:,\d{3})+"),
        ("How many people live in {x}?",),
        compare="Which has the larger population, {a} or {b}?",
    ),
    Relation(
        "life_expectancy",
        "life expectancy",
        (PEOPLE, "Life expectancy at birth", "total population"),
        extract.one(r"[\d.]+ years"),
        compare="Which has the higher life expectancy, {a} or {b}?",
    ),
    Relation(
        "median_age",
        "median age",
        (PEOPLE, "Median age", "total"),
        extract.one(r"[\d.]+ years"),
        compare="Which has the higher median age, {a} or {b}?",
    ),
    Relation(
        "nationality",
        "nationality",
        (PEOPLE, "Nationality", "adjective"),
        extract.one(r"[A-Z](?:(?! or )[\w' -])+"),  # "A or B" has no exact answer
        ("Which adjective names the nationality of {x}?",),
    ),
    Relation(
        "official_name",
        "official name",
        (GOVERNMENT, "Country name", "conventional long form"),
        extract.one(r"(?!none)[^;,()]+"),  # the Factbook writes "none" for a missing long form
    ),
    Relation(
        "government_type",
        "government type",
        (GOVERNMENT, "Government type", ""),
        extract.one(r"[a-z][^;,()]+"),
        ("Which type of government does {x} have?",),
    ),
    Relation(
        "independence",
        "independence date",
        (GOVERNMENT, "Independence", ""),
        extract.one(rf"\d{{1,2}} (?:{extract.MONTHS}) \d{{4}}"),
        ("When did {x} become independent?",),
        "whose independence date is {v}",
    ),
    Relation(
        "anthem",
        "national anthem",
        (GOVERNMENT, "National anthem(s)", "title"),
        extract.one(r'"([^"]+)"'),
        ("What is the title of the national anthem of {x}?",),
        "whose national anthem is {v}",
    ),
    Relation(
        "holiday",
        "national holiday",
        (GOVERNMENT, "National holiday", ""),
        extract.holiday,
        ("On which day is the national holiday of {x}?",),
    ),
    Relation(
        "time_zone",
        "time zone",
        (GOVERNMENT, "Capital", "time difference"),
        extract.one(r"UTC ?[+-]?\d+(?::\d\d|\.\d+)?"),
        ("Which time zone is used in {x}?",),
        unless="time zone note",
    ),
    Relation(
        "currency",
        "currency",
        (ECONOMY, "Exchange rates", "Currency"),
        extract.currency,
        ("Which currency is used in {x}?",),
        "whose currency is {v}",
    ),
    Relation(
        "main_export",
        "main export good",
        (ECONOMY, "Exports - commodities", ""),
        extract.first_item,
        ("Which good does {x} export most?",),
    ),
    Relation(
        "main_import",
        "main import good",
        (ECONOMY, "Imports - commodities", ""),
        extract.first_item,
        ("Which good does {x} import most?",),
    ),
    Relation(
        "internet_code",
        "internet code",
        (COMMUNICATIONS, "Internet country code", ""),
        extract.one(r"\.[a-z]{2,3}"),
        ("Which internet code does {x} have?",),
        "whose internet code is {v}",
    ),
    Relation(
        "airports",
        "number of airports",
        (TRANSPORTATION, "Airports", ""),
        extract.one(r"[\d,]+"),
        ("How many airports does {x} have?",),
        compare="Which has more airports, {a} or {b}?",
    ),
)

_LINKS = (
    Relation(
        "longest_border",
        "longest border",
        (GEOGRAPHY, "Land boundaries", "border countries"),
        extract.longest_border,
        link="the neighbour with the longest border with {x}",
    ),
    Relation(
        "export_partner",
        "top export partner",
        (ECONOMY, "Exports - partners", ""),
        extract.top_partner,
        link="the top export partner of {x}",
    ),
    Relation(
        "import_partner",
        "top import partner",
        (ECONOMY, "Imports - partners", ""),
        extract.top_partner,
        link="the top import partner of {x}",
    ),
)

RELATIONS: Mapping[str, Relation] = {relation.name: relation for relation in (*_ATTRIBUTES, *_LINKS)}
"""All relations by name."""

INVERSE = "country_by_"
"""Prefix of a relation's name in an inverse hop, which looks for the country that has a given value."""


@dataclass(frozen=True)
class Lookup:
    """One hop: find a relation's value for a country, or (inverse) find the country with a given value."""

    relation: Relation
    subject: str
    """Title of the country; in an inverse lookup, the value."""
    inverse: bool = False

    @property
    def subtask(self) -> str:
        """Subtask that main delegates: ``highest point of France``, ``country whose capital is Paris``."""
        phrase = self.relation.phrase
        return f"country whose {phrase} is {self.subject}" if self.inverse else f"{phrase} of {self.subject}"

    @property
    def query(self) -> str:
        """First search query: ``highest point of France``, ``capital is Paris``."""
        return self.subtask.removeprefix("country whose ")

    @property
    def other_query(self) -> str:
        """Second search query, with the page's words instead of the relation's; for when the first found nothing."""
        words = " ".join(part for part in self.relation.heading[1:] if part)
        return f"{self.subject} {words}"

    def about(self, subject: str) -> Lookup:
        """Return the same lookup for another subject."""
        return replace(self, subject=subject)


def lookup(hop: Evidence) -> Lookup:
    """Convert a hop of a gold path to a lookup."""
    inverse = hop.relation.startswith(INVERSE)
    return Lookup(RELATIONS[hop.relation.removeprefix(INVERSE)], hop.subject, inverse)


def parse_subtask(subtask: str) -> Lookup | None:
    """Parse a subtask into a lookup; None if it has another wording."""
    for relation in RELATIONS.values():
        for inverse, start in ((False, f"{relation.phrase} of "), (True, f"country whose {relation.phrase} is ")):
            if subtask.startswith(start) and len(subtask) > len(start):
                return Lookup(relation, subtask[len(start) :], inverse)
    return None
