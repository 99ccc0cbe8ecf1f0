"""Search services (SearXNG, Serper, Brave, Tavily, Search-R1 retriever): request, key header, parser of hits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from mgrpo_lightning.services.reading import SILENT, UnusableAnswer

EngineName = Literal["searxng", "serper", "brave", "tavily", "retriever"]


@dataclass(frozen=True)
class Hit:
    """One search result."""

    url: str
    title: str
    text: str
    """A snippet of the page, or a whole passage (retriever)."""


@dataclass(frozen=True)
class Engine:
    """Address, request and response format of one search service."""

    url: str | None
    """Address of the service; None if users run their own server."""
    method: Literal["GET", "POST"]
    key: str | None
    """Header that carries the API key, with ``{}`` for the key; None if the service needs no key."""
    query: Callable[[str, int], dict[str, Any]]
    """Maps a query and a number of hits to the parameters of a GET, or to the JSON body of a POST."""
    hits: Callable[[Any], list[Hit]]
    """Parses the hits of a JSON response; raises if the response is unusable."""


def _listed(hits: Any, *, url: str, title: str, text: str) -> list[Hit]:
    return _readable(hits, lambda one: Hit(str(one[url]), str(one.get(title, "")), str(one.get(text) or "")))


def _passages(answer: Any) -> list[Hit]:
    """Parse Search-R1's format: the contents of a document are its title in quotes, a line break, and the text."""

    def read(one: Any) -> Hit:
        document = one.get("document", one)
        title, _, text = str(document["contents"]).partition("\n")
        return Hit(str(document.get("id", "")), title.strip('" '), text)

    # `result` has one list of documents for each query; we send one query.
    return _readable(answer["result"][0], read)


def _readable(hits: Any, read: Callable[[Any], Hit]) -> list[Hit]:
    """Parse a list of hits and skip the malformed ones.

    Raises:
        TypeError: It is not a list, or all of its hits are malformed.
    """
    if not isinstance(hits, list):
        raise TypeError("no list of hits")
    found = []
    for one in hits:
        with suppress(LookupError, TypeError, AttributeError):
            found.append(read(one))
    # All malformed: the format of the service has probably changed, which must not look like an empty result.
    if hits and not found:
        raise TypeError("no hit that can be read")
    return found


def _serper(answer: Any) -> Any:
    """Without hits, Serper omits the list. Every response of it contains the request, so others raise KeyError."""
    return answer["organic"] if "organic" in answer or "searchParameters" not in answer else []


def _brave(answer: Any) -> Any:
    """Without hits, Brave omits the pages. Every response of it has the type ``search``, so others raise KeyError."""
    return answer["web"]["results"] if "web" in answer or answer.get("type") != "search" else []


def _searxng(answer: Any) -> Any:
    """An empty list means no hits only if all engines of SearXNG responded; otherwise the search is retried."""
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
"""Services by their name in a team file; ``retriever`` is a local retrieval server with the API of Search-R1."""
