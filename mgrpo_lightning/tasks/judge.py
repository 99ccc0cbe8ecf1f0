"""Judge: an LLM behind an OpenAI-compatible endpoint decides about answers and reports where a rule cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

from mgrpo_lightning.errors import ScoringError
from mgrpo_lightning.persistence.atomic import cache_path
from mgrpo_lightning.ranges import Count, Range, Seconds, Share, ranged
from mgrpo_lightning.records.trajectory import Trajectory
from mgrpo_lightning.services.client import ServiceFailed
from mgrpo_lightning.services.endpoint import ChatEndpoint, EndpointConfig
from mgrpo_lightning.tasks.agreement import Agreement
from mgrpo_lightning.tasks.verdict import PROMPT_VERSION, read_rubric, read_verdict, rubric_prompt, verdict_prompt
from mgrpo_lightning.unicode import visible


@ranged("judge")
class Judge:
    """Asks a chat model, at temperature 0, and remembers what it said.

    A failure is retried and then raised: the sample leaves its group, it is never scored as wrong (correctness.md 29).

    Args:
        url: Of the endpoint, up to and with ``/v1``.
        model: Name of the judging model there.
        key_variable: Environment variable with the key; None sends none.
        timeout: Seconds of one try, from connecting to the last byte; then it counts as failed.
        attempts: Tries in all.
        backoff: Seconds before the second try; doubled for each further one. ``Retry-After`` goes before it.
        concurrency: Requests in flight at most.
        cache: Folder of remembered verdicts, shared by runs; None remembers for the life of the process.
        audit: Share of the answers that a rule calls right about which the judge is asked too: the rule's word counts,
            and the agreement of both is logged, in which an audited answer stands for 1 / audit of its kind.
        parameters: Further fields of every request, as this server wants them, such as ``max_completion_tokens``; null
            leaves one out, such as ``temperature``. ``stream: true`` is for a server that only streams.

    Raises:
        ConfigurationError: The environment variable is not set, or a number is out of its range.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str | None = None,
        timeout: Seconds = 60.0,
        attempts: Count = 5,
        backoff: Annotated[float, Range(0, 3600)] = 1.0,
        concurrency: Count = 16,
        cache: str | None = None,
        audit: Share = 0.0,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        config = EndpointConfig(url, model, key_variable, timeout, attempts, backoff, concurrency, parameters)
        self._endpoint = ChatEndpoint(config, "judge")
        self.model = model
        self._cache = Path(cache).absolute() if cache is not None else None
        self.agreement = Agreement(audit)
        """Of what it was asked about answers, with the rule that had decided before."""
        self._audit = audit
        self._known: dict[str, float] = {}
        self._asked: dict[str, asyncio.Task[float]] = {}

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
        prompt = verdict_prompt(question, accepted, answer)
        return bool(await self._decide([question, list(accepted), answer], prompt, read_verdict))

    async def expert(self, subtask: str, report: str, findings: Sequence[str]) -> float:
        """How well a report did its subtask: does it answer it, and is it supported by what the tools returned.

        Args:
            subtask: What the sub-agent was given.
            report: What it answered.
            findings: What its tools returned, in order.

        Returns:
            0, 0.5 or 1.

        Raises:
            ScoringError: The judge gave no verdict in any try.
            ConfigurationError: The endpoint refuses: wrong key, model or address.
        """
        prompt = rubric_prompt(subtask, report, findings)
        return await self._decide(["report", subtask, report, list(findings)], prompt, read_rubric)

    async def decide(self, question: str, accepted: Sequence[str], answer: str, *, matched: bool) -> bool:
        """Whether an answer is right: a rule's match is, and about any other the judge is asked.

        Args:
            question: Its text.
            accepted: Accepted answers.
            answer: What was answered, not empty.
            matched: What the rule said.

        Raises:
            ScoringError: The judge gave no verdict in any try, on an answer that does not match.
            ConfigurationError: The endpoint refuses: wrong key, model or address.
        """
        if matched and not self._audits(question, answer):
            return True
        try:
            verdict = await self.correct(question, accepted, answer)
        except ScoringError:
            if matched:
                return True
            raise
        self.agreement.add(matched, verdict)
        return matched or verdict

    def _audits(self, question: str, answer: str) -> bool:
        """By a hash, so that a repeated run asks about the same answers."""
        digest = blake2b(json.dumps(["audit", question, answer]).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._audit * 2**64

    async def _decide(self, about: list[object], prompt: str, read: Callable[[str], float | None]) -> float:
        asked = [self._endpoint.config.parameters] if self._endpoint.config.parameters else []
        parts = json.dumps([PROMPT_VERSION, self.model, *about, *asked])
        key = blake2b(parts.encode(), digest_size=16).hexdigest()
        if (known := self._remembered(key)) is not None:
            return known
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(self._ask(prompt, read))
            self._asked[key].add_done_callback(lambda _: self._asked.pop(key))
        verdict = await self._asked[key]
        self._remember(key, verdict)
        return verdict

    async def _ask(self, prompt: str, read: Callable[[str], float | None]) -> float:
        messages = [{"role": "user", "content": prompt}]
        try:
            return await self._endpoint.ask(messages, lambda found: read(found.text), temperature=0)
        except ServiceFailed as error:
            words = f" It says: {error.words}" if error.words else ""
            raise ScoringError(f"the judge gave no verdict: {error}{words}") from error

    def _remembered(self, key: str) -> float | None:
        if key not in self._known and self._cache is not None:
            try:
                verdict = json.loads((self._cache / f"{key}.json").read_text())
            except (OSError, ValueError):
                return None
            if isinstance(verdict, bool | float):
                self._known[key] = verdict
        return self._known.get(key)

    def _remember(self, key: str, verdict: float) -> None:
        if self._cache is not None and key not in self._known:
            with cache_path(self._cache / f"{key}.json") as temporary:
                temporary.write_text(json.dumps(verdict))
        self._known[key] = verdict


async def judged_report(judge: Judge | None, trajectory: Trajectory) -> float:
    """A sub trajectory's expert score; one without a report, or without a judge, has 0.

    Args:
        judge: Asked.
        trajectory: A sub-agent's.

    Raises:
        ScoringError: The judge gave no verdict in any try.
    """
    if judge is None or not visible(trajectory.answer or "").strip():
        return 0.0
    findings = [call.result for call in trajectory.calls if not call.failed]
    return await judge.expert(trajectory.task, trajectory.answer or "", findings)
