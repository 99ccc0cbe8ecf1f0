"""The tool ``visit`` over a local corpus: read a page from a section or field on; suggest names like a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.tools.base import Tool, function_tool

NEAR_MATCHES = 3
MOST_COMPARED = 5000
"""Above this many names no near matches are computed: for half a million pages it would take seconds."""


class FieldText(Protocol):
    """One field of a page."""

    @property
    def section(self) -> str:
        """Name of its section."""
        ...

    @property
    def field(self) -> str:
        """Its name, unique in its section."""
        ...

    @property
    def text(self) -> str:
        """Its text, in one or more lines."""
        ...


@dataclass(frozen=True)
class Document:
    """A page: its title, and its fields in reading order."""

    title: str
    fields: Sequence[FieldText]

    def read(self, heading: str) -> str:
        """The text from a heading to the end of its section, below a line with the page's title and the section.

        Args:
            heading: ``Section``, ``Field`` or ``Section: Field``; case and white space are ignored. If two sections
                have the field and none is named, the first section is read.

        Raises:
            ToolError: The page has no such heading; the message names similar ones.
        """
        start = self._find(heading)
        section = self.fields[start].section
        lines = [field.text for field in self.fields[start:] if field.section == section]
        return "\n".join([f"{self.title} | {section}", *lines])

    def _find(self, heading: str) -> int:
        wanted = _fold(heading)
        places: dict[str, int] = {}
        for i, field in enumerate(self.fields):
            places.setdefault(f"{field.section}: {field.field}", i)
        # setdefault keeps the first entry: a section wins over a field of the same name, an earlier field over a later.
        for i, field in enumerate(self.fields):
            places.setdefault(field.section, i)
        for i, field in enumerate(self.fields):
            places.setdefault(field.field, i)
        found = next((i for name, i in places.items() if _fold(name) == wanted), None)
        if found is None:
            raise ToolError(f"{self.title} has no section {heading!r}.", hint=_near(heading, places))
        return found


def visit_tool(documents: Mapping[str, Document]) -> Tool:
    """The tool ``visit(url, section)`` over pages by URL.

    The error for an unknown URL names similar ones; with more than ``MOST_COMPARED`` pages it tells the policy to
    search.
    """

    def visit(url: str, section: str) -> str:
        """Read a page from a section or field on."""
        document = documents.get(url.strip())
        if document is None:
            raise ToolError(f"there is no page {url!r}.", hint=_near(url, documents))
        return document.read(section)

    return function_tool(visit)


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()


def _near(wanted: str, names: Collection[str]) -> str:
    # difflib compares the wanted name with each name, so the cost grows with their number.
    compared = list(names) if len(names) <= MOST_COMPARED else []
    # Reversed, so that of names with the same folded form the first one is kept.
    folded = {_fold(name): name for name in reversed(compared)}
    matches = difflib.get_close_matches(_fold(wanted), folded, n=NEAR_MATCHES, cutoff=0.5)
    return f"did you mean {', '.join(folded[m] for m in matches)}?" if matches else "search for it first."
