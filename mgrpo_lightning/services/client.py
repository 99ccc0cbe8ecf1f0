"""Service: an HTTP client with retries, backoff, timeouts and limits; a service that never answers ends the run.

Judges, model endpoints and search services use it. Each try is limited in total time, in bytes and in JSON depth.
Temporary failures are retried, each kind of failure is logged once, and a service that never answers ends the run.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import httpx2

from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.services.connections import PerLoop, certificates, kept_connections, send
from mgrpo_lightning.services.reading import (
    MAX_BYTES,
    UNREADABLE,
    Answer,
    UnusableAnswer,
    read_body,
    retry_after,
    words_of,
)
from mgrpo_lightning.services.settings import require_http, shown_url

log = logging.getLogger(__name__)
T = TypeVar("T")
RETRIED = (408, 409, 425, 429)
"""Statuses below 500 that are retried; those from 500 on always are."""
REFUSED = (401, 402, 403, 404, 432, 433)
"""Statuses that every request would get, because the key, plan, model or address is wrong. They end the run."""
UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout)
"""Errors which say that no server listens at the address."""
TO_CONNECT = 0.9
"""Connect timeout as a share of a try's timeout. It ends first, so an absent server is told from a slow one."""
HOPELESS_AT_FIRST = 8
"""Failed requests in a row (each with all its tries) that end the run, if the service never gave a usable answer."""
HOPELESS = 64
"""The same for a service that has given usable answers before: it may be down for a while."""
MOST_TOLD = 20
"""Maximum kinds of failure logged for one service; its messages may be different every time."""
_VARYING = re.compile(r"[\w-]*\d[\w-]*")
"""Matches words with a digit (counts, times, ids), which differ between failures of one kind."""


@dataclass(frozen=True)
class Patience:
    """Timeouts, retries and limits of the requests to a service."""

    timeout: float
    """Seconds for one try, from connecting to the last byte."""
    attempts: int
    """Maximum tries of a request, including the first."""
    backoff: float
    """Seconds before the second try; doubled for each further one. A ``Retry-After`` header overrides it."""
    concurrency: int
    """Maximum requests in flight."""
    max_bytes: int = MAX_BYTES
    """Maximum bytes of an answer, both compressed and decompressed."""


class UnusableWords(UnusableAnswer):
    """An unusable text of a model. It is not logged, because it may quote an encrypted benchmark."""


class ServiceFailed(MgrpoError, OSError):
    """No try gave a usable answer, or the service rejected this request (for instance because it is too long).

    Args:
        service: Name and address of the service.
        problem: What failed, without text of the server, so that a policy may see it.
        words: The error message of the server.
    """

    def __init__(self, service: str, problem: str, words: str = "") -> None:
        super().__init__(f"{service} gave no answer: {problem}.")
        self.problem = problem
        self.words = words


class Service:
    """The client of one service. Its connections are kept between requests.

    Args:
        name: Name of the service in messages, such as ``judge``.
        url: Address of the service. Messages show it without user name and query.
        patience: Timeouts, retries and limits of each request.
        refused: Hint of the error that is raised if the service rejects every request.
        secret: API key; it is masked in messages.

    Raises:
        ConfigurationError: The address is not an http(s) URL, the key cannot stand in a header, or a limit is below 1.
    """

    def __init__(self, name: str, url: str, patience: Patience, *, refused: str, secret: str | None = None) -> None:
        require_http(url, name)
        if secret and not (secret.isascii() and secret.isprintable()):
            raise ConfigurationError(
                f"the key of the {name} at {url} has characters that an HTTP header cannot contain.",
                hint="copy it again.",
            )
        for what, value in (("attempts", patience.attempts), ("concurrency", patience.concurrency)):
            if value < 1:
                raise ConfigurationError(
                    f"the {what} of the {name} at {url} are {value}.", hint="set them to at least 1."
                )
        self.name, self.patience = name, patience
        self.url = shown_url(url)
        """The address for messages."""
        self._refused = refused
        self._secret = secret
        self._reached = False
        """Whether it has ever sent a response, of any status."""
        self._useful = False
        """Whether it has ever given a usable answer."""
        self._failed_in_a_row = 0
        self._told: set[str] = set()
        self._clients = PerLoop(self._client)
        # One semaphore for each event loop: it works in one loop only, and every play and every scoring has its own.
        self._limits: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def ask(
        self,
        method: Literal["GET", "POST"],
        url: str,
        read: Callable[[Answer], T],
        *,
        headers: Mapping[str, str],
        params: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> T:
        """Send a request, with retries, and return what ``read`` makes of the answer.

        Args:
            url: Full URL of the request.
            read: Converts an answer. If it raises one of ``UNREADABLE``, the answer is unusable, and the request is
                retried.
            headers: HTTP headers of the request.
            body: Request body, sent as JSON; None sends none.

        Raises:
            ServiceFailed: No try gave a usable answer, or the service rejected this request.
            ConfigurationError: The service rejects every request (wrong key, model or address), has never been
                reached, or failed many requests in a row.
        """
        patience = self.patience
        limit = self._limits.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(patience.concurrency))
        failure = _Failure("")
        client = await self._clients.get()
        # The permit is held during the pauses between tries too, so a failing service gets fewer requests.
        async with limit:
            request = client.build_request(method, url, params=params, json=body, headers=headers)
            for attempt in range(patience.attempts):
                if attempt:
                    await asyncio.sleep(retry_after(failure.retry_after, patience.backoff * 2 ** (attempt - 1)))
                found = await self._try(client, request, read)
                if not isinstance(found, _Failure):
                    self._useful, self._failed_in_a_row = True, 0
                    return found
                failure = found
                self._tell(failure)
                if failure.final:
                    break
        raise self._given_up(failure)

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=TO_CONNECT * self.patience.timeout),
            headers={"Accept-Encoding": "gzip"},  # only gzip: `read_body` decompresses it, with a size limit
            verify=certificates(),
            limits=kept_connections(self.patience.concurrency),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # no request depends on an earlier one
        )

    async def _try(
        self, client: httpx2.AsyncClient, request: httpx2.Request, read: Callable[[Answer], T]
    ) -> T | _Failure:
        try:
            # A limit on the whole try: httpx's own read timeout restarts with every byte.
            async with asyncio.timeout(self.patience.timeout):
                response = await send(client, request)
                self._reached = True
                try:
                    body = await read_body(response, self.patience.max_bytes)
                finally:
                    await response.aclose()
        except UnusableAnswer as error:  # the status, if an error, says more than the unreadable body
            return self._of_status(response, b"") or _Failure(f"its answer cannot be read: {error}")
        except TimeoutError:
            return _Failure(f"no complete answer within {self.patience.timeout:g} s")
        except httpx2.HTTPError as error:
            return _Failure(type(error).__name__, unreachable=isinstance(error, UNREACHABLE))
        if (failure := self._of_status(response, body)) is not None:
            return failure
        try:
            return read(Answer(body, response.headers.get("Content-Type", "").partition(";")[0].strip().lower()))
        except UnusableAnswer as error:
            words = "" if isinstance(error, UnusableWords) else self._shown(body)
            return _Failure(f"its answer cannot be read: {error}", words)
        except UNREADABLE:
            return _Failure("its answer cannot be read", self._shown(body))

    def _of_status(self, response: httpx2.Response, body: bytes) -> _Failure | None:
        """The failure that an error status means; None for a success."""
        status = response.status_code
        if response.is_success:
            return None
        words = self._shown(body)
        if status in REFUSED or status < 400:  # below 400: a redirect, so the address is wrong
            told = f": {words}" if words else ""
            raise ConfigurationError(
                f"the {self.name} at {self.url} refuses requests with status {status}{told}.", hint=self._refused
            )
        passing = status in RETRIED or status >= 500
        # Other errors below 500, such as a prompt that is too long or filtered, would come again: they are final.
        after = response.headers.get("Retry-After") if passing else None
        return _Failure(f"status {status}", words, retry_after=after, final=not passing)

    def _shown(self, body: bytes) -> str:
        # A server may repeat the key in its error message.
        words = words_of(body)
        return words.replace(self._secret, "***") if self._secret else words

    def _tell(self, failure: _Failure) -> None:
        # Failures that differ only in words with digits are of one kind.
        kind = _VARYING.sub("#", f"{failure.problem} {failure.words}")
        if kind not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(kind)
            log.warning("the %s at %s: %s. This is logged once", self.name, self.url, failure)

    def _given_up(self, failure: _Failure) -> MgrpoError:
        if failure.unreachable and not self._reached:
            return ConfigurationError(
                f"the {self.name} at {self.url} cannot be reached: {failure.problem}.",
                hint="start its server, correct its url, or connect this machine to the network.",
            )
        # Every usable answer resets the count; too many failures in a row end the run.
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= (HOPELESS if self._useful else HOPELESS_AT_FIRST):
            return ConfigurationError(
                f"the {self.name} at {self.url} gave no usable answer to {self._failed_in_a_row} requests in a row; "
                f"the last time: {failure}.",
                hint="correct the service or its `parameters` (of an endpoint or judge), then resume.",
            )
        return ServiceFailed(f"the {self.name} at {self.url}", failure.problem, failure.words)


@dataclass(frozen=True)
class _Failure:
    """Why a try failed."""

    problem: str
    words: str = ""
    """The error message of the server; "" if there is none."""
    unreachable: bool = False
    retry_after: str | None = None
    final: bool = False
    """Whether a retry would fail in the same way."""

    def __str__(self) -> str:
        return f"{self.problem} ({self.words!r})" if self.words else self.problem
