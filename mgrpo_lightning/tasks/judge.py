"""Judge: an LLM behind an OpenAI-compatible endpoint decides whether an answer is right where a rule cannot."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import httpx2

from mgrpo_lightning.atomic import atomic_path
from mgrpo_lightning.errors import ConfigurationError, ScoringError
from mgrpo_lightning.tasks.verdict import PROMPT_VERSION, read_verdict, verdict_prompt

log = logging.getLogger(__name__)
RETRIED = (408, 409, 425, 429)
"""Statuses below 500 that another try may mend."""


class Judge:
    """Asks a chat model, at temperature 0, and remembers what it said.

    A failure is retried and then raised: the sample leaves its group, it is never scored as wrong (correctness.md 29).

    Args:
        url: Of the endpoint, up to and with ``/v1``.
        model: Name of the judging model there.
        key_variable: Environment variable with the key; None sends none.
        timeout: Seconds until one try counts as failed.
        attempts: Tries in all.
        backoff: Seconds before the second try; doubled for each further one. ``Retry-After`` goes before it.
        concurrency: Requests in flight at most.
        cache: Folder of remembered verdicts, shared by runs; None remembers for the life of the process.

    Raises:
        ConfigurationError: The environment variable is not set, or a size is below 1.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str | None = None,
        timeout: float = 60.0,
        attempts: int = 5,
        backoff: float = 1.0,
        concurrency: int = 16,
        cache: str | None = None,
    ) -> None:
        for name, value in (("attempts", attempts), ("concurrency", concurrency)):
            if value < 1:
                raise ConfigurationError(f"the judge's {name} is {value}.", hint="give at least 1.")
        if key_variable is not None and not os.environ.get(key_variable):
            raise ConfigurationError(
                f"the judge's key is to be in the environment variable {key_variable!r}, which is not set.",
                hint="export it, or leave key_variable out for an endpoint without keys.",
            )
        self.url = url.rstrip("/")
        self.model = model
        self._key_variable = key_variable
        self._timeout = timeout
        self._attempts = attempts
        self._backoff = backoff
        self._concurrency = concurrency
        self._cache = Path(cache) if cache is not None else None
        self._known: dict[str, bool] = {}
        self._asked: dict[str, asyncio.Task[bool]] = {}
        # Every step is scored in an event loop of its own.
        self._limits: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def correct(self, question: str, accepted: Sequence[str], answer: str) -> bool:
        """Whether an answer is right; what is asked twice at once is sent once.

        Args:
            question: Its text.
            accepted: Accepted answers.
            answer: What was answered.

        Raises:
            ScoringError: The judge gave no verdict in any try.
            ConfigurationError: The endpoint refuses: wrong key, model or address.
        """
        parts = json.dumps([PROMPT_VERSION, self.model, question, list(accepted), answer])
        key = blake2b(parts.encode(), digest_size=16).hexdigest()
        if (known := self._remembered(key)) is not None:
            return known
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(self._ask(verdict_prompt(question, accepted, answer)))
            self._asked[key].add_done_callback(lambda _: self._asked.pop(key))
        verdict = await self._asked[key]
        self._remember(key, verdict)
        return verdict

    async def _ask(self, prompt: str) -> bool:
        limit = self._limits.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._concurrency))
        problem = ""
        async with limit, httpx2.AsyncClient(timeout=self._timeout) as client:
            for attempt in range(self._attempts):
                pause = self._backoff * 2**attempt
                try:
                    response = await client.post(
                        f"{self.url}/chat/completions", json=self._body(prompt), headers=self._headers()
                    )
                    if response.is_success:
                        verdict = read_verdict(_content(response))
                        if verdict is not None:
                            return verdict
                        problem = "its words are no verdict"
                    elif response.status_code in RETRIED or response.status_code >= 500:
                        problem = f"status {response.status_code}"
                        pause = _retry_after(response, pause)
                    else:
                        raise ConfigurationError(
                            f"the judge at {self.url} refuses with status {response.status_code}.",
                            hint="check its url, model and key.",
                        )
                except httpx2.HTTPError as error:
                    problem = type(error).__name__
                if attempt + 1 < self._attempts:
                    await asyncio.sleep(pause)
        log.warning("the judge at %s gave no verdict in %d tries: %s", self.url, self._attempts, problem)
        raise ScoringError(f"the judge at {self.url} gave no verdict: {problem}.")

    def _body(self, prompt: str) -> dict[str, Any]:
        return {"model": self.model, "temperature": 0, "messages": [{"role": "user", "content": prompt}]}

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {os.environ[self._key_variable]}"} if self._key_variable else {}

    def _remembered(self, key: str) -> bool | None:
        if key not in self._known and self._cache is not None:
            try:
                verdict = json.loads((self._cache / f"{key}.json").read_text())
            except (OSError, ValueError):
                return None
            if isinstance(verdict, bool):
                self._known[key] = verdict
        return self._known.get(key)

    def _remember(self, key: str, verdict: bool) -> None:
        if self._cache is not None and key not in self._known:
            with atomic_path(self._cache / f"{key}.json") as temporary:
                temporary.write_text(json.dumps(verdict))
        self._known[key] = verdict


def _content(response: httpx2.Response) -> str:
    """The message in a completion; empty if it is none."""
    try:
        return str(response.json()["choices"][0]["message"]["content"])
    except (ValueError, LookupError, TypeError):
        return ""


def _retry_after(response: httpx2.Response, otherwise: float) -> float:
    """Seconds that the server asks to wait, at most a minute."""
    value = response.headers.get("Retry-After", "")
    return min(float(value), 60.0) if value.isdigit() else otherwise
