"""WebSearch: the tool ``search`` on the live web or a retriever: ask a service, cache hits, drop blocked ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.services.cache import JsonCache, entry_name
from mgrpo_lightning.services.client import Patience, Service, ServiceFailed
from mgrpo_lightning.services.settings import api_key
from mgrpo_lightning.tools.base import Tool, function_tool
from mgrpo_lightning.tools.web.engines import ENGINES, EngineName, Hit

BACKOFF = 0.5
"""Seconds before the second try."""
AT_ONCE = 8
"""Maximum requests in flight: services limit their rate, and all rollouts of a step search concurrently."""
SNIPPET = 300
"""Maximum characters shown of a hit's text; a passage of a retriever is shown whole."""


class WebSearch:
    """The client of one search service. Its address is the user's choice and may be private.

    Args:
        engine: Name of the service, a key of ``ENGINES``.
        url: Address of the service; needed for services that users run themselves.
        key_variable: Environment variable with the API key; None for services without keys.
        k: Maximum hits shown.
        timeout: Timeout of one try in seconds, from connecting to the last byte.
        attempts: Maximum tries of a request, including the first.
        cache: Folder of the result cache, which runs may share; None: no cache.
        blocks: Returns True for a URL or text that must not be shown; such hits are removed.

    Raises:
        ConfigurationError: The address or the key is missing, or ``k`` is below 1.
    """

    def __init__(
        self,
        engine: EngineName,
        url: str | None = None,
        key_variable: str | None = None,
        *,
        k: int = 5,
        timeout: float = 20.0,
        attempts: int = 3,
        cache: str | None = None,
        blocks: Callable[[str], bool] = lambda text: False,
    ) -> None:
        self._engine = ENGINES[engine]
        self._name = engine
        self._url = url or self._engine.url or ""
        if not self._url:
            raise ConfigurationError(f"search engine {engine!r} has no url.", hint="give the url of your server.")
        self._key_variable = key_variable
        secret, self._headers = None, {}
        if self._engine.key is not None:
            secret = api_key(key_variable, f"search engine {engine!r}", "export it, and give its name as key_variable.")
            name, _, value = self._engine.key.partition(": ")
            self._headers = {name: value.format(secret)}
        if k < 1:
            raise ConfigurationError(f"search has k = {k} hits.", hint="set k to at least 1.")
        patience = Patience(timeout, attempts, BACKOFF, AT_ONCE)
        self._service = Service(f"search engine {engine!r}", self._url, patience, refused=self._hint(), secret=secret)
        self._k = k
        self._cache = JsonCache(cache)
        self._blocks = blocks

    async def find(self, query: str) -> list[Hit]:
        """At most k hits for a query, best first, without blocked ones.

        Args:
            query: The search query; any text.

        Raises:
            ToolError: No try gave a usable answer.
            ConfigurationError: Every search of the run would fail, see ``Service.ask``; or the cache cannot be
                written.
        """
        # Everything that changes the response is part of the name; the API key is not.
        name = entry_name(json.dumps([self._name, self._url, self._k, query]))
        hits = self._cache.get(name, _hits)
        if not hits:
            hits = await self._ask(query)
            if hits:  # an empty result is not cached: it may be a temporary failure
                self._cache.put(name, [asdict(hit) for hit in hits])
        # Filter after the cache: runs that share it may block different pages.
        return [hit for hit in hits if not self._blocks(f"{hit.url}\n{hit.title}\n{hit.text}")][: self._k]

    def tool(self) -> Tool:
        """The tool ``search(query)``: one line with URL and title for each hit, its snippet below."""

        async def search(query: str) -> str:
            """Find pages by keywords."""
            hits = await self.find(query)
            if not hits:
                raise ToolError(f"nothing found for {query!r}.", hint="search for other words.")
            # The passages of a retriever have no page behind them that a visit could read.
            whole = self._name == "retriever"
            return "\n".join(f"{n}. {shown(hit, whole=whole)}" for n, hit in enumerate(hits, start=1))

        return function_tool(search)

    async def _ask(self, query: str) -> list[Hit]:
        engine = self._engine
        sent = engine.query(query, self._k)
        # A GET sends the query in the URL, a POST sends it as JSON.
        params, body = (sent, None) if engine.method == "GET" else (None, sent)
        try:
            return await self._service.ask(
                engine.method,
                self._url,
                lambda answer: engine.hits(answer.json()),
                headers=self._headers,
                params=params,
                body=body,
            )
        except ServiceFailed as error:
            raise ToolError(f"the search gave no answer ({error.problem}).", hint="search for other words.") from error

    def _hint(self) -> str:
        """The hint of the error that is raised if the service rejects every request."""
        if self._engine.key is not None:
            return f"check the key in the environment variable {self._key_variable!r} and its remaining quota."
        if self._name == "searxng":
            return "list json under search.formats in its settings.yml, and allow this machine in its limiter."
        return "check its url, and check that it serves this machine."


def shown(hit: Hit, *, whole: bool) -> str:
    """The text of a hit for the policy.

    Args:
        whole: Whether to show the whole text and no URL, for passages that cannot be visited.
    """
    head = " | ".join(filter(None, (hit.url if not whole else "", hit.title)))
    text = " ".join(hit.text.split())
    return f"{head}\n{text if whole else text[:SNIPPET]}".strip()


def _hits(found: Any) -> list[Hit]:
    return [Hit(**hit) for hit in found]
