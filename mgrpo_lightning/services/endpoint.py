"""ChatEndpoint: ask an LLM behind an OpenAI-compatible server, plain or streamed; for judges and untrained roles."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.ranges import Count, Range, Seconds, ranged
from mgrpo_lightning.services.client import Patience, Service, UnusableWords
from mgrpo_lightning.services.reading import Answer, parse_json
from mgrpo_lightning.services.settings import api_key, require_http

T = TypeVar("T")
_MARKER = re.compile(r"<(?=[|\uff5c]|/?(?:s|bos|eos|start_of_turn|end_of_turn)>|<SYS>>)|\[(?=/?[A-Z_]+\])")
"""Matches the first character of a control token, in the spellings of common chat templates."""
OURS = ("model", "messages", "n")
"""Fields of a request that ``parameters`` must not set."""


@ranged("endpoint")
@dataclass(frozen=True)
class EndpointConfig:
    """Address of a chat model, and the timeouts and retries of its requests."""

    url: str
    """Address of the endpoint, up to and including ``/v1``."""
    model: str
    """Name of the model at the endpoint."""
    key_variable: str | None = None
    """Environment variable that holds the API key; None sends no key."""
    timeout: Seconds = 60.0
    """Timeout of one try in seconds, from connecting to the last byte."""
    attempts: Count = 5
    """Maximum tries of a request, including the first."""
    backoff: Annotated[float, Range(0, 3600)] = 1.0
    """Seconds before the second try; doubled for each further one. A ``Retry-After`` header overrides it."""
    concurrency: Count = 16
    """Maximum requests in flight."""
    parameters: dict[str, Any] | None = None
    """Additional fields of every request, for options of this server. A null removes a field that would be sent, such
    as ``temperature`` or ``max_tokens``. Set ``stream: true`` for a server that only streams."""

    def __post_init__(self) -> None:
        # The caller sets these fields; another n would only cost tokens, as one choice is read.
        if taken := [name for name in OURS if name in (self.parameters or {})]:
            raise ConfigurationError(
                f"the parameters of endpoint {self.url} have {taken[0]!r}.", hint="remove it: the package sets it."
            )
        require_http(self.url, "endpoint")


@dataclass(frozen=True)
class Completion:
    """The reply of a model."""

    text: str
    cut: bool
    """Whether the token limit ended the reply (finish reason ``length``)."""


class ChatEndpoint:
    """The client of one model.

    Args:
        config: Address, model, timeouts and retries.
        name: Name of the service in messages, such as ``judge``.

    Raises:
        ConfigurationError: The environment variable with the key is not set.
    """

    def __init__(self, config: EndpointConfig, name: str = "endpoint") -> None:
        key = None
        if config.key_variable is not None:
            hint = "export it, or leave key_variable out if the endpoint needs no key."
            key = api_key(config.key_variable, f"endpoint {config.url}", hint)
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
        """Send a conversation, with retries, and return what ``read`` makes of the reply.

        A space is inserted into control tokens inside of the contents. They are text of a policy or of a web page, but
        a server may encode them as real control tokens, so that the text could imitate another role's message.

        Args:
            messages: Messages in the API's format: dicts with ``role`` and ``content``.
            read: Converts a completion. If it returns None, the completion is unusable, and the request is retried.
            **sampling: Additional fields of the request, such as ``temperature`` and ``max_tokens``.

        Raises:
            ServiceFailed: No try gave a usable reply, or the endpoint rejected this request.
            ConfigurationError: See ``Service.ask``.
        """
        sent = [{**message, "content": _MARKER.sub(r"\g<0> ", message["content"])} for message in messages]
        # The configured parameters come last: they win over the caller's, and a None among them removes a field.
        fields = {"model": self.config.model, "messages": sent, **sampling, **(self.config.parameters or {})}

        def usable(answer: Answer) -> T:
            completion = _streamed(answer) if answer.kind == "text/event-stream" else _completion(answer.json())
            if (value := read(completion)) is not None:
                return value
            raise UnusableWords(f"its text cannot be used{', because it is cut off' if completion.cut else ''}")

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
    """Join the pieces of a streamed answer (server-sent events) into one completion."""
    text, ended = [], ""
    for line in answer.body.decode().splitlines():
        name, _, value = line.partition(":")
        if name != "data" or value.strip() == "[DONE]":
            continue
        for choice in parse_json(value)["choices"][:1]:  # the last chunk may hold token counts and no choices
            text.append(choice["delta"].get("content") or "")
            ended = choice.get("finish_reason") or ended
    if not ended:  # no finish reason: the connection broke before the end of the answer
        raise ValueError("no end")
    return Completion("".join(text), ended == "length")
