"""ChatEndpoint: an LLM behind an OpenAI-compatible server. Judges and untrained roles use it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.ranges import Count, Range, Seconds, ranged
from mgrpo_lightning.services.client import Answer, Patience, Service, UnusableWords, require_http
from mgrpo_lightning.services.reading import parse_json

T = TypeVar("T")
_MARKER = re.compile(r"<(?=[|\uff5c]|/?(?:s|bos|eos|start_of_turn|end_of_turn)>|<SYS>>)|\[(?=/?[A-Z_]+\])")
"""The first character of a control token, as the chat templates of common models write them."""
OURS = ("model", "messages", "n")
"""Fields of a request that ``parameters`` cannot change."""


@ranged("endpoint")
@dataclass(frozen=True)
class EndpointConfig:
    """Where a chat model is served, and how patiently it is asked."""

    url: str
    """Of the endpoint, up to and with ``/v1``."""
    model: str
    """Name of the model there."""
    key_variable: str | None = None
    """Environment variable with the key; None sends none."""
    timeout: Seconds = 60.0
    """Seconds of one try, from connecting to the last byte; then it counts as failed."""
    attempts: Count = 5
    """Tries in all."""
    backoff: Annotated[float, Range(0, 3600)] = 1.0
    """Seconds before the second try; doubled for each further one. ``Retry-After`` goes before it."""
    concurrency: Count = 16
    """Requests in flight at most."""
    parameters: dict[str, Any] | None = None
    """Further fields of every request, as this server wants them; null leaves one out that would be sent, such as
    ``temperature`` or ``max_tokens``. ``stream: true`` reads the answer of a server that only streams."""

    def __post_init__(self) -> None:
        if taken := [name for name in OURS if name in (self.parameters or {})]:
            raise ConfigurationError(
                f"the parameters of endpoint {self.url} have {taken[0]!r}.", hint="leave it out: it is set elsewhere."
            )
        require_http(self.url, "endpoint")


@dataclass(frozen=True)
class Completion:
    """What a model said."""

    text: str
    cut: bool
    """It had not come to its end when its tokens were used up."""


class ChatEndpoint:
    """Asks one model.

    Args:
        config: Where and how.
        name: What messages call it.

    Raises:
        ConfigurationError: The environment variable with the key is not set.
    """

    def __init__(self, config: EndpointConfig, name: str = "endpoint") -> None:
        key = None if config.key_variable is None else os.environ.get(config.key_variable)
        if config.key_variable is not None and not key:
            raise ConfigurationError(
                f"the key of endpoint {config.url} is to be in the environment variable {config.key_variable!r}, which "
                "is not set.",
                hint="export it, or leave key_variable out for an endpoint without keys.",
            )
        self.config = config
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._service = Service(
            f"{name} {config.model}",
            config.url,
            Patience(config.timeout, config.attempts, config.backoff, config.concurrency),
            refused="check its url, model and key.",
            secret=key,
        )

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
            ServiceFailed: No try gave one, or the endpoint will not have this request.
            ConfigurationError: See ``Service.ask``.
        """
        sent = [{**message, "content": _MARKER.sub(r"\g<0> ", message["content"])} for message in messages]
        fields = {"model": self.config.model, "messages": sent, **sampling, **(self.config.parameters or {})}

        def usable(answer: Answer) -> T:
            completion = _streamed(answer) if answer.kind == "text/event-stream" else _completion(answer.json())
            if (value := read(completion)) is not None:
                return value
            raise UnusableWords(f"its words cannot be used{', as they are cut' if completion.cut else ''}")

        return await self._service.ask(
            "POST",
            f"{self.config.url.rstrip('/')}/chat/completions",
            usable,
            headers=self._headers,
            body={name: value for name, value in fields.items() if value is not None},
        )


def _completion(found: Any) -> Completion:
    choice = found["choices"][0]
    if not isinstance(text := choice["message"]["content"], str):
        raise TypeError("no text")
    return Completion(text, choice.get("finish_reason") == "length")


def _streamed(answer: Answer) -> Completion:
    """The pieces of an answer that comes as server-sent events, put together."""
    text, ended = [], ""
    for line in answer.body.decode().splitlines():
        name, _, value = line.partition(":")
        if name != "data" or value.strip() == "[DONE]":
            continue
        for choice in parse_json(value)["choices"][:1]:  # the last one may count tokens alone
            text.append(choice["delta"].get("content") or "")
            ended = choice.get("finish_reason") or ended
    if not ended:  # the connection may have ended before the answer did
        raise ValueError("no end")
    return Completion("".join(text), ended == "length")
