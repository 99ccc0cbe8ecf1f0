"""The visit tool: the text of a page from one of its fields or sections on, so that long pages are read in parts."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.tools.base import Tool, function_tool

NEAR_MATCHES = 3
MOST_COMPARED = 5000
"""Names among which near matches are looked for; over a world of half a million pages it would take seconds."""


class FieldText(Protocol):
    """One field of a page, as a visit shows it."""

    @property
    def section(self) -> str:
        """The section it is in."""
        ...

    @property
    def field(self) -> str:
        """Its name, unique in its section."""
        ...

    @property
    def text(self) -> str:
        """Its lines."""
        ...


@dataclass(frozen=True)
class Document:
    """A page that can be visited: a title and its fields in reading order."""

    title: str
    fields: Sequence[FieldText]

    def read(self, heading: str) -> str:
        """The page's title and section in one line, then its text from a heading to the end of the section.

        Args:
            heading: ``Section``, ``Field`` or ``Section: Field``; case and surrounding space do not matter. A field
                that stands in two sections is read in the first one unless the section is named.

        Raises:
            ToolError: The page has no such heading; near matches are named.
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
        # Sections come before fields of the same name, and the first field before its namesakes.
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

    A wrong URL is an error that names near ones, or, where there are more than ``MOST_COMPARED`` pages, the search.
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
    compared = list(names) if len(names) <= MOST_COMPARED else []
    folded = {_fold(name): name for name in reversed(compared)}
    matches = difflib.get_close_matches(_fold(wanted), folded, n=NEAR_MATCHES, cutoff=0.5)
    return f"did you mean {', '.join(folded[m] for m in matches)}?" if matches else "search for it first."
