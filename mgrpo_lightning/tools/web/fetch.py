"""Fetcher: download public web pages: redirects, timeout, size, requests per host, blocked patterns, disk cache."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote
from weakref import WeakKeyDictionary

import httpx2

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.ranges import Count, Seconds, ranged
from mgrpo_lightning.services.cache import JsonCache, entry_name
from mgrpo_lightning.services.connections import PerLoop, send
from mgrpo_lightning.services.reading import UnusableAnswer, read_body
from mgrpo_lightning.tools.web.decoding import decoded
from mgrpo_lightning.tools.web.public_addresses import PublicTransport, check_url

REDIRECTS = 5
KINDS = ("text/html", "application/xhtml+xml", "text/plain", "text/markdown", "application/json", "text/xml")
"""Accepted media types; all are text."""
QUOTED = 4
"""How many levels of percent-encoding (``%2D`` for a hyphen) are searched for blocked patterns. Servers decode once or
twice; without a limit, a page of nested encodings could take hours."""
AGENT = "mgrpo-lightning (+https://arxiv.org/abs/2511.13288)"


@ranged("fetch")
@dataclass(frozen=True)
class FetchConfig:
    """Limits, cache and blocked pages of fetching."""

    timeout: Seconds = 20.0
    """Timeout of a page in seconds, including redirects and slow bodies."""
    max_bytes: Count = 4 * 2**20
    """Maximum bytes of a page, both compressed and decompressed."""
    per_host: Count = 2
    """Maximum concurrent requests to one host."""
    wait: Seconds = 120.0
    """Maximum seconds that a request waits for earlier requests to the same host."""
    cache: str | None = None
    """Folder of the page cache, which runs may share; None: no cache."""
    allowed: tuple[str, ...] = ()
    """``host:port`` pairs that may have private addresses."""
    blocked: tuple[str, ...] = ()
    """Regular expressions, case-insensitive. If one matches the URL or the text of a page, the page is refused, so that
    pages about a benchmark do not leak its answers."""


@dataclass(frozen=True)
class Page:
    """A downloaded page."""

    url: str
    """URL after the last redirect."""
    kind: str
    """Media type."""
    text: str


class Fetcher:
    """Downloads pages.

    Args:
        config: Limits, cache folder and blocked patterns.
    """

    def __init__(self, config: FetchConfig = FetchConfig()) -> None:
        self.config = config
        self._cache = JsonCache(config.cache)
        self._blocked = [_pattern(pattern) for pattern in config.blocked]
        self._transports = PerLoop(lambda: PublicTransport(config.allowed))
        self._hosts: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]] = WeakKeyDictionary()

    async def get(self, url: str) -> Page:
        """Return the page at a URL, from the cache or the web.

        Args:
            url: URL as a policy wrote it; it is checked here.

        Raises:
            ToolError: The URL is invalid or refused; or the page is missing, not text, too large, too slow or blocked;
                or its host is too busy.
        """
        address = _parsed(url)
        check_url(address, frozenset(self.config.allowed))
        self._refuse_blocked(str(address))
        if (page := self._remembered(str(address))) is not None:
            return page
        async with self._turn(address.host):
            # Check again: the rollouts of a group open the same pages, and another one may have just cached this one.
            if (page := self._remembered(str(address))) is not None:
                return page
            page = await self._fetch(address)
            self._refuse_blocked_page(page)
            self._cache.put(entry_name(str(address)), asdict(page))
            return page

    def blocks(self, text: str) -> bool:
        """Whether a blocked pattern matches a URL or text, also after percent-decoding (``%2D``).

        Args:
            text: The URL or text.
        """
        for _ in range(QUOTED):
            if any(pattern.search(text) for pattern in self._blocked):
                return True
            text = unquote(text)
        return False

    def _refuse_blocked(self, text: str) -> None:
        if self.blocks(text):
            raise ToolError("this page is blocked.", hint="find the answer elsewhere.")

    def _refuse_blocked_page(self, page: Page) -> None:
        self._refuse_blocked(page.url)
        self._refuse_blocked(page.text)

    @asynccontextmanager
    async def _turn(self, host: str) -> AsyncIterator[None]:
        """Hold one of the ``per_host`` permits of a host; waits at most ``wait`` seconds."""
        limits = self._hosts.setdefault(asyncio.get_running_loop(), {})
        turn = limits.setdefault(host, asyncio.Semaphore(self.config.per_host))
        try:
            async with asyncio.timeout(self.config.wait):
                await turn.acquire()
        except TimeoutError as error:
            raise ToolError(
                f"{host} was busy with other requests for {self.config.wait:g} s.", hint="read another page."
            ) from error
        try:
            yield
        finally:
            turn.release()

    async def _fetch(self, url: httpx2.URL) -> Page:
        try:
            async with asyncio.timeout(self.config.timeout):
                return await self._followed(url)
        except TimeoutError as error:
            raise ToolError(f"{url} took longer than {self.config.timeout:g} s.", hint="read another page.") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ToolError(f"{url} cannot be read: {type(error).__name__}.", hint="read another page.") from error

    async def _followed(self, url: httpx2.URL) -> Page:
        """The page behind at most ``REDIRECTS`` redirects."""
        client = await self._client()
        request = client.build_request("GET", url)
        for _ in range(1 + REDIRECTS):
            response = await send(client, request)
            try:
                if response.next_request is None:
                    return await self._page(response)
                # The body of a redirect is not read. The client would read it without a limit of its size.
                request = response.next_request
            finally:
                await response.aclose()
        raise ToolError(f"{url} redirects more than {REDIRECTS} times.", hint="read another page.")

    async def _client(self) -> httpx2.AsyncClient:
        # One client per page, so that cookies end with the page. The transport is shared and holds the connections.
        return httpx2.AsyncClient(
            transport=await self._transports.get(),
            trust_env=False,  # a proxy from the environment would bypass the transport's check of addresses
            timeout=self.config.timeout,
            headers={"User-Agent": AGENT, "Accept": ", ".join(KINDS), "Accept-Encoding": "gzip"},
        )

    async def _page(self, response: httpx2.Response) -> Page:
        # Headers only so far: status and media type are checked before the body is downloaded.
        url = str(response.url)
        if not response.is_success:
            raise ToolError(f"{url} answers with status {response.status_code}.", hint="read another page.")
        # Without parameters such as the charset.
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in KINDS:
            raise ToolError(f"{url} is {kind or 'of no kind'!r}, not a page of text.", hint="read another page.")
        try:
            body = await read_body(response, self.config.max_bytes)
        except UnusableAnswer as error:
            raise ToolError(f"{url} cannot be read: {error}.", hint="read another page.") from error
        return Page(url, kind, decoded(body, response.charset_encoding, html="html" in kind or "xml" in kind))

    def _remembered(self, url: str) -> Page | None:
        page = self._cache.get(entry_name(url), _page)
        if page is not None:
            self._refuse_blocked_page(page)  # the run that cached it may have had other patterns
        return page


def _page(found: Any) -> Page:
    return Page(found["url"], found["kind"], found["text"])


def _pattern(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigurationError(
            f"fetch.blocked has {pattern!r}, which is not a regular expression: {error}.", hint="escape it: \\( for (."
        ) from error


def _parsed(url: str) -> httpx2.URL:
    try:
        return httpx2.URL(url.strip())
    except (httpx2.InvalidURL, ValueError, TypeError) as error:
        raise ToolError(
            f"{url[:200]!r} is not a URL.", hint="give a whole URL, such as https://example.org/page."
        ) from error
