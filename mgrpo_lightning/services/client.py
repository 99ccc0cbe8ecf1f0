"""Service: whatever answers over HTTP at an address of the user's choice, asked with patience and within bounds.

Judges, models behind endpoints and search services are all asked here. Each try has a bound of time in all, of bytes
and of depth. What may pass is tried again, what a server says is told once, and one that answers nothing ends the run.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import httpx2

from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.services.reading import MAX_BYTES, UnusableAnswer, parse_json, read_body, retry_after, words_of

log = logging.getLogger(__name__)
T = TypeVar("T")
RETRIED = (408, 409, 425, 429)
"""Statuses below 500 that another try may mend."""
REFUSED = (401, 402, 403, 404, 432, 433)
"""Statuses that every request would get, whatever it asks: the key, the plan, the model or the address is wrong."""
UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout)
"""What says that nobody is there."""
TO_CONNECT = 0.9
"""Share of a try's time within which there must be a connection: so who is not there is told from who is slow."""
HOPELESS_AT_FIRST = 8
"""Requests in a row without a usable answer, each with all its tries, after which a service that never gave one is
given up."""
HOPELESS = 64
"""The same for one that has given some: it may be down for a while."""
MOST_TOLD = 20
"""Different words of one service that are told; a server may make up new ones each time."""
_VARYING = re.compile(r"[\w-]*\d[\w-]*")
"""Words that differ from request to request: counts, times, ids."""


certificates = cache(httpx2.create_ssl_context)
"""What the machine trusts, read once: it takes longer than a request."""


@dataclass(frozen=True)
class Patience:
    """How a service is asked."""

    timeout: float
    """Seconds of one try, from connecting to the last byte."""
    attempts: int
    """Tries in all."""
    backoff: float
    """Seconds before the second try; doubled for each further one. ``Retry-After`` goes before it."""
    concurrency: int
    """Requests in flight at most."""
    max_bytes: int = MAX_BYTES
    """Of one answer, as sent and as unpacked."""


@dataclass(frozen=True)
class Answer:
    """What a server sent with a status of success."""

    body: bytes
    kind: str
    """Media type, "" if it names none."""

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            UnusableAnswer: It is none, or nested too deeply.
        """
        return parse_json(self.body)


class UnusableWords(UnusableAnswer):
    """An answer whose words are a model's: they stay out of logs, as they may quote a sealed benchmark."""


class ServiceFailed(MgrpoError, OSError):
    """A service that gave no usable answer in any try, or will not answer this request, such as one that is too long.

    Args:
        service: Which.
        problem: What failed, without anything that the server said: a policy may be told.
        words: What the server said.
    """

    def __init__(self, service: str, problem: str, words: str = "") -> None:
        super().__init__(f"{service} gave no answer: {problem}.")
        self.problem = problem
        self.words = words


class Service:
    """Asks one service.

    Args:
        name: What messages call it, such as ``judge``.
        url: Its address, as messages show it.
        patience: Bounds of each request.
        refused: What to do where it refuses whatever it is asked; the hint of that error.
        secret: Its key, which no message shows.

    Raises:
        ConfigurationError: The address is none, or a bound is below what it must be.
    """

    def __init__(self, name: str, url: str, patience: Patience, *, refused: str, secret: str | None = None) -> None:
        require_http(url, name)
        if secret and not (secret.isascii() and secret.isprintable()):
            raise ConfigurationError(
                f"the key of the {name} at {url} has characters that no header can hold.", hint="copy it once more."
            )
        for what, value in (("attempts", patience.attempts), ("concurrency", patience.concurrency)):
            if value < 1:
                raise ConfigurationError(f"the {what} of the {name} at {url} are {value}.", hint="give at least 1.")
        self.name, self.patience = name, patience
        address = httpx2.URL(url)
        self.url = f"{address.scheme}://{address.netloc.decode()}{address.path}"
        """Its address without what may be secret: a user's name, a query."""
        self._refused = refused
        self._secret = secret
        self._reached = False
        """It has answered something once."""
        self._useful = False
        """It has given a usable answer once."""
        self._failed_in_a_row = 0
        self._told: set[str] = set()
        # Every step is played and scored in event loops of its own.
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
        """Send a request until there is an answer that can be read.

        Args:
            method: Of HTTP.
            url: Where.
            read: Reads an answer; whatever ValueError, LookupError, TypeError or AttributeError it raises, the answer
                is none.
            headers: Sent along.
            params: Of the query.
            body: Sent as JSON.

        Raises:
            ServiceFailed: No try gave one, or the service will not have this request.
            ConfigurationError: The service refuses whatever it is asked: wrong key, model or address; it could not be
                reached, now or ever before; or it has answered nothing for a long time.
        """
        patience = self.patience
        limit = self._limits.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(patience.concurrency))
        failure = _Failure("")
        time = httpx2.Timeout(None, connect=TO_CONNECT * patience.timeout)
        accepts = {"Accept-Encoding": "gzip"}
        async with limit, httpx2.AsyncClient(timeout=time, headers=accepts, verify=certificates()) as client:
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

    async def _try(
        self, client: httpx2.AsyncClient, request: httpx2.Request, read: Callable[[Answer], T]
    ) -> T | _Failure:
        try:
            async with asyncio.timeout(self.patience.timeout):
                response = await client.send(request, stream=True)
                self._reached = True
                try:
                    body = await read_body(response, self.patience.max_bytes)
                finally:
                    await response.aclose()
        except UnusableAnswer as error:  # what is no answer may have a status that says more
            return self._of_status(response, b"") or _Failure(f"its answer cannot be read: {error}")
        except TimeoutError:
            return _Failure(f"no whole answer within {self.patience.timeout:g} s")
        except httpx2.HTTPError as error:
            return _Failure(type(error).__name__, unreachable=isinstance(error, UNREACHABLE))
        if (failure := self._of_status(response, body)) is not None:
            return failure
        try:
            return read(Answer(body, response.headers.get("Content-Type", "").partition(";")[0].strip().lower()))
        except UnusableAnswer as error:
            words = "" if isinstance(error, UnusableWords) else self._shown(body)
            return _Failure(f"its answer cannot be read: {error}", words)
        except (ValueError, LookupError, TypeError, AttributeError):
            return _Failure("its answer cannot be read", self._shown(body))

    def _of_status(self, response: httpx2.Response, body: bytes) -> _Failure | None:
        """None of a success."""
        status = response.status_code
        if response.is_success:
            return None
        words = self._shown(body)
        if status in REFUSED or status < 400:  # below: it is elsewhere
            told = f": {words}" if words else ""
            raise ConfigurationError(
                f"the {self.name} at {self.url} refuses with status {status}{told}.", hint=self._refused
            )
        passing = status in RETRIED or status >= 500
        # Of what is too long or filtered, the same again would get the same.
        after = response.headers.get("Retry-After") if passing else None
        return _Failure(f"status {status}", words, retry_after=after, final=not passing)

    def _shown(self, body: bytes) -> str:
        words = words_of(body)
        return words.replace(self._secret, "***") if self._secret else words

    def _tell(self, failure: _Failure) -> None:
        kind = _VARYING.sub("#", f"{failure.problem} {failure.words}")
        if kind not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(kind)
            log.warning("the %s at %s: %s. Told once", self.name, self.url, failure)

    def _given_up(self, failure: _Failure) -> MgrpoError:
        if failure.unreachable and not self._reached:
            return ConfigurationError(
                f"the {self.name} at {self.url} cannot be reached: {failure.problem}.",
                hint="start its server, correct the url, or see that this machine has a network.",
            )
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= (HOPELESS if self._useful else HOPELESS_AT_FIRST):
            return ConfigurationError(
                f"the {self.name} at {self.url} gave no usable answer to {self._failed_in_a_row} requests in a row; "
                f"the last time: {failure}.",
                hint="mend the service or what it is asked (`parameters` of an endpoint or judge), then go on.",
            )
        return ServiceFailed(f"the {self.name} at {self.url}", failure.problem, failure.words)


@dataclass(frozen=True)
class _Failure:
    """Why a try gave nothing."""

    problem: str
    words: str = ""
    """The server's own."""
    unreachable: bool = False
    retry_after: str | None = None
    final: bool = False
    """Another try would get the same."""

    def __str__(self) -> str:
        return f"{self.problem} ({self.words!r})" if self.words else self.problem


def require_http(url: str, what: str) -> None:
    """Make sure that requests can be sent to an address.

    Args:
        url: The address.
        what: Whose it is.

    Raises:
        ConfigurationError: It is no http(s) address with a host.
    """
    try:
        parsed = httpx2.URL(url)
        good = parsed.scheme in ("http", "https") and bool(parsed.host)
    except (httpx2.InvalidURL, ValueError):
        good = False
    if not good:
        raise ConfigurationError(
            f"the url of the {what} is {url!r}.", hint="give a whole one, such as http://localhost:8000/v1."
        )
