"""Parse tool results for the demonstrator: search hits, the fact of a lookup on a visited page, its first fact."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mgrpo_lightning.tasks.factbook.relations import Lookup

NOT_FOUND = "not found"
"""Report of a searcher that found nothing."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One line of search results."""

    url: str
    title: str
    heading: str
    """Format: ``Section: Field``."""

    @property
    def field(self) -> str:
        """The field without its section; ``visit`` accepts it as the place to open."""
        return self.heading.partition(": ")[2]


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer, and the words on the page that contain it."""

    value: str
    quote: str = ""


def parse_hits(text: str) -> list[Hit]:
    """Parse the hits of a search result; lines that a length limit has cut are left out."""
    return [Hit(*match) for match in re.findall(r"^\d+\. (\S+) \| (.+) \| (.+: .+)$", text, re.MULTILINE)]


def read_fact(text: str, step: Lookup) -> Finding | None:
    """Read the answer to a lookup on a visited page; None if the line is missing, ambiguous or does not match.

    Args:
        text: Result of the tool ``visit``.
        step: The lookup. In an inverse lookup, the line must have the value, and the answer is the page's title.
    """
    header, *lines = text.split("\n")
    _, field, subfield = step.relation.heading
    start = f"{field} - {subfield}: " if subfield else f"{field}: "
    line = next((line for line in lines if line.startswith(start)), None)
    value = step.relation.extract(line.removeprefix(start)) if line else None
    if value is None:
        return None
    assert line is not None, "a value stands on a line"
    quote = f"{subfield or field}: " + _quoted(line.removeprefix(start), value)
    if not step.inverse:
        return Finding(value, quote)
    title = header.rpartition(" | ")[0]
    # In both cases the quote ends with the answer.
    return Finding(title, f"{quote}\ncountry: {title}") if value.casefold() == step.subject.casefold() else None


def _quoted(text: str, value: str) -> str:
    """Quote the text from its start to the end of the value; only the value if it is an item of a list."""
    before = text[: text.index(value)]
    if ";" in before:
        return value
    return f"{before}{value}" + ('"' if before == '"' else "")


def read_first_line(text: str) -> Finding | None:
    """Read the first fact of a visited page, without checking that it fits, up to its first remark."""
    _, *lines = text.split("\n")
    if not lines:
        return None
    label, _, value = lines[0].rpartition(" - ")[2].partition(": ")
    value = re.split(r" \(|; ", value)[0]
    return Finding(value, f"{label}: {value}") if value else None
