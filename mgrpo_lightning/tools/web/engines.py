"""How each search service is asked, and where its hits stand in what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from mgrpo_lightning.services.reading import SILENT, UnusableAnswer

EngineName = Literal["searxng", "serper", "brave", "tavily", "retriever"]


@dataclass(frozen=True)
class Hit:
    """One result."""

    url: str
    title: str
    text: str
    """A snippet, or a whole passage."""


@dataclass(frozen=True)
class Engine:
    """One service."""

    url: str | None
    """Its address; None where everybody has a server of their own."""
    method: Literal["GET", "POST"]
    key: str | None
    """Header of the key, ``{}`` in its value; None: it takes none."""
    query: Callable[[str, int], dict[str, Any]]
    """Parameters of a GET, or the JSON body of a POST, for a query and a number of hits."""
    hits: Callable[[Any], list[Hit]]
    """Reads them from the answer; whatever it raises, the answer is none."""


def _listed(hits: Any, *, url: str, title: str, text: str) -> list[Hit]:
    return _readable(hits, lambda one: Hit(str(one[url]), str(one.get(title, "")), str(one.get(text) or "")))


def _passages(answer: Any) -> list[Hit]:
    """Search-R1: a document's contents are its quoted title, a line break, and the text."""

    def read(one: Any) -> Hit:
        document = one.get("document", one)
        title, _, text = str(document["contents"]).partition("\n")
        return Hit(str(document.get("id", "")), title.strip('" '), text)

    return _readable(answer["result"][0], read)


def _readable(hits: Any, read: Callable[[Any], Hit]) -> list[Hit]:
    """The hits that can be read, of a list in which some can.

    Raises:
        TypeError: It is no list, or none of its hits can be read.
    """
    if not isinstance(hits, list):
        raise TypeError("no list of hits")
    found = []
    for one in hits:
        with suppress(LookupError, TypeError, AttributeError):
            found.append(read(one))
    if hits and not found:
        raise TypeError("no hit that can be read")
    return found


def _serper(answer: Any) -> Any:
    """It leaves the list out where it found nothing, and always says what it was asked."""
    return answer["organic"] if "organic" in answer or "searchParameters" not in answer else []


def _brave(answer: Any) -> Any:
    """It leaves the pages out where it found none, and always says that it has searched."""
    return answer["web"]["results"] if "web" in answer or answer.get("type") != "search" else []


def _searxng(answer: Any) -> Any:
    """An empty list is an answer where all engines have given one; else nobody knows whether there is something."""
    results = answer["results"]
    if results == [] and answer.get(SILENT):
        raise UnusableAnswer("it found nothing, and some of its engines did not respond")
    return results


ENGINES: Mapping[EngineName, Engine] = {
    "searxng": Engine(
        None,
        "GET",
        None,
        lambda query, k: {"q": query, "format": "json"},
        lambda answer: _listed(_searxng(answer), url="url", title="title", text="content"),
    ),
    "serper": Engine(
        "https://google.serper.dev/search",
        "POST",
        "X-API-KEY: {}",
        lambda query, k: {"q": query, "num": k},
        lambda answer: _listed(_serper(answer), url="link", title="title", text="snippet"),
    ),
    "brave": Engine(
        "https://api.search.brave.com/res/v1/web/search",
        "GET",
        "X-Subscription-Token: {}",
        lambda query, k: {"q": query, "count": k},
        lambda answer: _listed(_brave(answer), url="url", title="title", text="description"),
    ),
    "tavily": Engine(
        "https://api.tavily.com/search",
        "POST",
        "Authorization: Bearer {}",
        lambda query, k: {"query": query, "max_results": k},
        lambda answer: _listed(answer["results"], url="url", title="title", text="content"),
    ),
    "retriever": Engine(
        None,
        "POST",
        None,
        lambda query, k: {"queries": [query], "topk": k, "return_scores": True},
        _passages,
    ),
}
"""By the name that a team file gives them; ``retriever`` is a server as Search-R1 has it, without a web behind it."""
