"""ChatEndpoint: an LLM behind an OpenAI-compatible server, asked with patience. Judges and untrained roles use it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import httpx2

from mgrpo_lightning.errors import ConfigurationError, MgrpoError

log = logging.getLogger(__name__)
T = TypeVar("T")
RETRIED = (408, 409, 425, 429)
"""Statuses below 500 that another try may mend."""
_MARKER = re.compile(r"<(?=[|\uff5c]|/?(?:s|bos|eos|start_of_turn|end_of_turn)>|<SYS>>)|\[(?=/?[A-Z_]+\])")
"""The first character of a control token, as the chat templates of common models write them."""
REFUSED = (401, 403, 404)
"""Statuses that every request would get, whatever it asks: the key, the model or the address is wrong."""


@dataclass(frozen=True)
class EndpointConfig:
    """Where a chat model is served, and how patiently it is asked."""

    url: str
    """Of the endpoint, up to and with ``/v1``."""
    model: str
    """Name of the model there."""
    key_variable: str | None = None
    """Environment variable with the key; None sends none."""
    timeout: float = 60.0
    """Seconds until one try counts as failed."""
    attempts: int = 5
    """Tries in all."""
    backoff: float = 1.0
    """Seconds before the second try; doubled for each further one. ``Retry-After`` goes before it."""
    concurrency: int = 16
    """Requests in flight at most."""

    def __post_init__(self) -> None:
        for name, value in (("attempts", self.attempts), ("concurrency", self.concurrency)):
            if value < 1:
                raise ConfigurationError(f"the {name} of endpoint {self.url} are {value}.", hint="give at least 1.")
        require_http(self.url, "endpoint")


UNREACHABLE = (httpx2.ConnectError, httpx2.ConnectTimeout)
"""What says that nobody is there."""


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


class EndpointFailed(MgrpoError, OSError):
    """A server that gave no usable answer in any try, or will not answer this request, such as one that is too long."""


class ChatEndpoint:
    """Asks one model.

    Args:
        config: Where and how.

    Raises:
        ConfigurationError: The environment variable with the key is not set.
    """

    def __init__(self, config: EndpointConfig) -> None:
        if config.key_variable is not None and not os.environ.get(config.key_variable):
            raise ConfigurationError(
                f"the key of endpoint {config.url} is to be in the environment variable {config.key_variable!r}, which "
                "is not set.",
                hint="export it, or leave key_variable out for an endpoint without keys.",
            )
        self.config = config
        self._reached = False
        """It has answered something once."""
        # Every step is played and scored in event loops of its own.
        self._limits: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def ask(
        self, messages: Sequence[Mapping[str, str]], read: Callable[[Completion], T | None], **sampling: Any
    ) -> T:
        """Send a conversation until there is an answer that can be read.

        Control tokens in a content are broken up by a space: they are words, of a policy or of a page that it read, but
        a server may read them as tokens, and let who wrote them speak in another's turn.

        Args:
            messages: As the API takes them: role and content.
            read: Reads a completion; None: it cannot be used, and another is asked for.
            **sampling: Further fields of the request, such as ``temperature`` and ``max_tokens``.

        Raises:
            EndpointFailed: No try gave one, or the endpoint will not have this request.
            ConfigurationError: The endpoint refuses whatever it is asked: wrong key, model or address; or it could not
                be reached, now or ever before.
        """
        config = self.config
        sent = [{**message, "content": _MARKER.sub(r"\g<0> ", message["content"])} for message in messages]
        url, body = config.url.rstrip("/"), {"model": config.model, "messages": sent, **sampling}
        limit = self._limits.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(config.concurrency))
        problem, unreachable = "", False
        async with limit, httpx2.AsyncClient(timeout=config.timeout) as client:
            for attempt in range(config.attempts):
                pause = config.backoff * 2**attempt
                try:
                    response = await client.post(f"{url}/chat/completions", json=body, headers=self._headers())
                    self._reached, unreachable = True, False
                    if response.is_success:
                        found = _completion(response)
                        if found is not None and (value := read(found)) is not None:
                            return value
                        problem = "its words cannot be used"
                    elif response.status_code in RETRIED or response.status_code >= 500:
                        problem = f"status {response.status_code}"
                        pause = retry_after(response, pause)
                    elif response.status_code in REFUSED or response.status_code < 400:  # below: it is elsewhere
                        raise ConfigurationError(
                            f"the endpoint {url} refuses with status {response.status_code}.",
                            hint="check its url, model and key.",
                        )
                    else:  # too long, filtered: the same again would get the same
                        problem = f"status {response.status_code}"
                        break
                except httpx2.HTTPError as error:
                    problem, unreachable = type(error).__name__, isinstance(error, UNREACHABLE)
                if attempt + 1 < config.attempts:
                    await asyncio.sleep(pause)
        if unreachable and not self._reached:
            raise ConfigurationError(
                f"the endpoint {url} cannot be reached: {problem}.", hint="start its server, or correct the url."
            )
        log.warning("%s at %s gave no answer in %d tries: %s", config.model, url, attempt + 1, problem)
        raise EndpointFailed(f"{config.model} at {url} gave no answer: {problem}.")

    def _headers(self) -> dict[str, str]:
        variable = self.config.key_variable
        return {"Authorization": f"Bearer {os.environ[variable]}"} if variable else {}


@dataclass(frozen=True)
class Completion:
    """What a model said."""

    text: str
    cut: bool
    """It had not come to its end when its tokens were used up."""


def _completion(response: httpx2.Response) -> Completion | None:
    """None if it is none."""
    try:
        choice = response.json()["choices"][0]
        content = choice["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return None
    return Completion(content, choice.get("finish_reason") == "length") if isinstance(content, str) else None


def retry_after(response: httpx2.Response, otherwise: float) -> float:
    """Seconds that a server asks to wait, at most a minute.

    Args:
        response: Of a status that another try may mend.
        otherwise: Seconds where it does not say.
    """
    value = response.headers.get("Retry-After", "")
    return min(float(value), 60.0) if value.isdigit() else otherwise
