"""Judge: ask a judge model about answers and reports; cache verdicts; audit a share of the rule's matches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Annotated, Any

from mgrpo_lightning.errors import ScoringError
from mgrpo_lightning.ranges import Count, Range, Seconds, Share, ranged
from mgrpo_lightning.records.trajectory import Trajectory
from mgrpo_lightning.services.cache import JsonCache, entry_name
from mgrpo_lightning.services.client import ServiceFailed
from mgrpo_lightning.services.endpoint import ChatEndpoint, EndpointConfig
from mgrpo_lightning.tasks.judge_agreement import Agreement
from mgrpo_lightning.tasks.judge_prompts import PROMPT_VERSION, read_rubric, read_verdict, rubric_prompt, verdict_prompt
from mgrpo_lightning.unicode import visible


@ranged("judge")
class Judge:
    """Asks a chat model at temperature 0 and caches its verdicts.

    Failed requests are retried. If all tries fail, the judge raises an error and the trajectory leaves its group; it is
    never scored as wrong (correctness.md 29).

    Args:
        url: URL of the endpoint, including ``/v1``.
        model: Name of the judge model at the endpoint.
        key_variable: Environment variable that holds the API key; None sends no key.
        timeout: Seconds that one try may take, from the connection to the last byte.
        attempts: Number of tries, including the first.
        backoff: Seconds before the second try, doubled for each further try. A ``Retry-After`` header wins.
        concurrency: Maximum number of requests in flight.
        cache: Folder of cached verdicts, which runs can share; None caches in memory only.
        audit: Share of the rule's matches for which the judge is asked too. The rule's result still counts; only the
            agreement of both is logged. There, each audited answer has weight 1 / audit.
        parameters: Extra fields of every request, such as ``max_completion_tokens``. The value null removes a field
            that is otherwise sent, such as ``temperature``. Use ``stream: true`` for a server that only streams.

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
        self._cache = JsonCache(cache)
        self.agreement = Agreement(audit)
        """Counts of how often judge and rule agree about an answer."""
        self._audit = audit
        self._known: dict[str, float] = {}
        self._asked: dict[str, asyncio.Task[float]] = {}

    async def correct(self, question: str, accepted: Sequence[str], answer: str) -> bool:
        """Ask whether an answer is right; concurrent calls with equal arguments share one request.

        Args:
            question: Text of the question.
            accepted: Accepted answers.
            answer: Answer to decide about.

        Raises:
            ScoringError: The judge gave no verdict in any try.
            ConfigurationError: The endpoint refuses: wrong key, model or address.
        """
        prompt = verdict_prompt(question, accepted, answer)
        return bool(await self._decide([question, list(accepted), answer], prompt, read_verdict))

    async def expert(self, subtask: str, report: str, findings: Sequence[str]) -> float:
        """Ask whether a report answers its subtask, and whether the tool results support it.

        Args:
            subtask: Text that the sub-agent was given.
            report: The sub-agent's answer.
            findings: Results of its tool calls, in order.

        Returns:
            Share of the two questions that the judge answers with yes: 0, 0.5 or 1.

        Raises:
            ScoringError: The judge gave no verdict in any try.
            ConfigurationError: The endpoint refuses: wrong key, model or address.
        """
        prompt = rubric_prompt(subtask, report, findings)
        return await self._decide(["report", subtask, report, list(findings)], prompt, read_rubric)

    async def decide(self, question: str, accepted: Sequence[str], answer: str, *, matched: bool) -> bool:
        """Decide whether an answer is right: yes if the rule matched it, else ask the judge.

        Args:
            question: Text of the question.
            accepted: Accepted answers.
            answer: Answer to decide about; not empty.
            matched: Result of the rule.

        Raises:
            ScoringError: The rule did not match, and the judge gave no verdict in any try.
            ConfigurationError: The endpoint refuses: wrong key, model or address.
        """
        if matched and not self._audits(question, answer):
            return True
        try:
            verdict = await self.correct(question, accepted, answer)
        except ScoringError:
            # A failed audit must not cost an answer that the rule accepts.
            if matched:
                return True
            raise
        self.agreement.add(matched, verdict)
        return matched or verdict

    def _audits(self, question: str, answer: str) -> bool:
        """Whether to audit an answer; a hash decides, so that a repeated run audits the same answers."""
        digest = blake2b(json.dumps(["audit", question, answer]).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._audit * 2**64

    async def _decide(self, about: list[object], prompt: str, read: Callable[[str], float | None]) -> float:
        asked = [self._endpoint.config.parameters] if self._endpoint.config.parameters else []
        # The key holds everything that can change the verdict, so another model or prompt does not reuse old ones.
        key = entry_name(json.dumps([PROMPT_VERSION, self.model, *about, *asked]))
        if (known := self._remembered(key)) is not None:
            return known
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(self._ask(prompt, read))
            # Removed when done: a verdict then comes from the cache, and a failure is asked again.
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
        if key not in self._known and (verdict := self._cache.get(key, _verdict)) is not None:
            self._known[key] = verdict
        return self._known.get(key)

    def _remember(self, key: str, verdict: float) -> None:
        if key not in self._known:
            self._cache.put(key, verdict)
        self._known[key] = verdict


def _verdict(found: Any) -> float:
    if not isinstance(found, bool | float):
        raise TypeError("no verdict")
    return found


async def judged_report(judge: Judge | None, trajectory: Trajectory) -> float:
    """Return a sub trajectory's expert score; 0 without a judge or without a visible report.

    Args:
        judge: Judge to ask, or None.
        trajectory: Trajectory of a sub-agent.

    Raises:
        ScoringError: The judge gave no verdict in any try.
    """
    if judge is None or not visible(trajectory.answer or "").strip():
        return 0.0
    findings = [call.result for call in trajectory.calls if not call.failed]
    return await judge.expert(trajectory.task, trajectory.answer or "", findings)
