"""WebSearch: the search tool of the live web, or of a retrieval server, over one of several services."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import httpx2

from mgrpo_lightning.atomic import cache_path
from mgrpo_lightning.endpoint import UNREACHABLE, require_http, retry_after
from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.tools.base import Tool, function_tool
from mgrpo_lightning.tools.web.engines import ENGINES, EngineName, Hit

log = logging.getLogger(__name__)
AGAIN = (408, 429, 500, 502, 503, 504)
"""Statuses that another try may mend."""
AT_ONCE = 8
"""Requests in flight at most: services count them, and a step's rollouts search all at once."""
REFUSED = (401, 402, 403, 404, 432, 433)
"""Statuses of a wrong key, a used-up plan, a wrong address, or of a server that does not answer programs."""
SNIPPET = 300
"""Characters shown of a hit's text; a passage is shown as a whole."""


class WebSearch:
    """Asks a service, whose address is the user's own choice.

    Args:
        engine: Which.
        url: Of the service; needed where everybody has a server of their own.
        key_variable: Environment variable with the key; None where there is none.
        k: Hits shown.
        timeout: Seconds until one try counts as failed.
        attempts: Tries in all.
        cache: Folder of remembered answers, shared by runs; None remembers nothing.
        blocks: Says of a URL or text that it must not be shown.

    Raises:
        ConfigurationError: The address or the key is missing, or no hit is to be shown.
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
        self._url = url or self._engine.url
        if self._url is None:
            raise ConfigurationError(f"search engine {engine!r} has no address.", hint="give the url of your server.")
        if self._engine.key is not None and not os.environ.get(key_variable or ""):
            raise ConfigurationError(
                f"the key of search engine {engine!r} is to be in the environment variable {key_variable!r}, which is "
                "not set.",
                hint="set key_variable to its name and export it.",
            )
        require_http(self._url, f"search engine {engine!r}")
        if k < 1:
            raise ConfigurationError(f"search shows k = {k} hits.", hint="give at least 1.")
        self._reached = False
        """It has answered something once."""
        self._key_variable = key_variable
        self._k = k
        self._timeout = timeout
        self._attempts = attempts
        self._cache = None if cache is None else Path(cache)
        self._blocks = blocks
        # Every step is played in an event loop of its own.
        self._limits: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def find(self, query: str) -> list[Hit]:
        """The hits for a query, best first, without what is blocked.

        Args:
            query: Any text.

        Raises:
            ToolError: The service gave no answer in any try.
            ConfigurationError: It refuses whoever asks, or could not be reached now or ever before: every search of
                the run would fail. Or what it answers cannot be kept.
        """
        path = self._place(query)
        hits = _remembered(path) if path else []
        if not hits:
            hits = await self._ask(query)
            if path and hits:  # finding nothing may be a service's bad day
                with cache_path(path) as temporary:
                    temporary.write_text(json.dumps([asdict(hit) for hit in hits], ensure_ascii=False), "utf-8")
        return [hit for hit in hits if not self._blocks(f"{hit.url}\n{hit.title}\n{hit.text}")][: self._k]

    def tool(self) -> Tool:
        """The tool ``search(query)``: a line a hit, its snippet below."""

        async def search(query: str) -> str:
            """Find pages by keywords."""
            hits = await self.find(query)
            if not hits:
                raise ToolError(f"nothing found for {query!r}.", hint="search for other words.")
            whole = self._name == "retriever"
            return "\n".join(f"{n}. {shown(hit, whole=whole)}" for n, hit in enumerate(hits, start=1))

        return function_tool(search)

    async def _ask(self, query: str) -> list[Hit]:
        engine, problem, unreachable = self._engine, "", False
        sent = engine.query(query, self._k)
        params, body = (sent, None) if engine.method == "GET" else (None, sent)
        limit = self._limits.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
        async with limit, httpx2.AsyncClient(timeout=self._timeout) as client:
            for attempt in range(self._attempts):
                pause = 2**attempt / 2
                try:
                    response = await client.request(
                        engine.method, str(self._url), headers=self._headers(), params=params, json=body
                    )
                except httpx2.HTTPError as error:
                    problem, unreachable = type(error).__name__, isinstance(error, UNREACHABLE)
                else:
                    self._reached, unreachable = True, False
                    if response.is_success:
                        return self._read(response)
                    if response.status_code in REFUSED:
                        raise self._refusal(response.status_code)
                    problem = f"status {response.status_code}"
                    if response.status_code not in AGAIN:
                        break
                    pause = retry_after(response, pause)
                if attempt + 1 < self._attempts:
                    await asyncio.sleep(pause)
        if unreachable and not self._reached:
            raise ConfigurationError(
                f"search engine {self._name!r} at {self._url} cannot be reached: {problem}.",
                hint="start its server, correct the url, or see that this machine has a network.",
            )
        log.warning("search engine %s gave no answer: %s", self._name, problem)
        raise ToolError(f"the search gave no answer ({problem}).", hint="try again later, or with other words.")

    def _refusal(self, status: int) -> ConfigurationError:
        hint = "check its url, and that it lets this machine ask."
        if self._engine.key is not None:
            hint = f"check the key in the environment variable {self._key_variable!r}, and what is left of its quota."
        elif self._name == "searxng":
            hint = "list json under search.formats in its settings.yml, and let its limiter pass this machine."
        return ConfigurationError(
            f"search engine {self._name!r} at {self._url} refuses with status {status}.", hint=hint
        )

    def _read(self, response: httpx2.Response) -> list[Hit]:
        try:
            return self._engine.hits(response.json())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ToolError("the search gave no answer (it cannot be read).", hint="search for other words.") from error

    def _headers(self) -> dict[str, str]:
        if self._engine.key is None or self._key_variable is None:
            return {}
        name, _, value = self._engine.key.partition(": ")
        return {name: value.format(os.environ[self._key_variable])}

    def _place(self, query: str) -> Path | None:
        if self._cache is None:
            return None
        parts = json.dumps([self._name, self._url, self._k, query])
        return self._cache / f"{blake2b(parts.encode(), digest_size=16).hexdigest()}.json"


def shown(hit: Hit, *, whole: bool) -> str:
    """A hit as a policy sees it.

    Args:
        hit: Found.
        whole: Whether its text is all that there is to read.
    """
    head = " | ".join(filter(None, (hit.url if not whole else "", hit.title)))
    text = " ".join(hit.text.split())
    return f"{head}\n{text if whole else text[:SNIPPET]}".strip()


def _remembered(path: Path) -> list[Hit]:
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
        return [Hit(**hit) for hit in found]
    except (OSError, ValueError, TypeError):
        return []
