"""Judge, endpoint role and search before servers that do everything wrong: bounded, told once, and ended."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator

import pytest

from mgrpo_lightning.agents.text_conversations import EndpointConversation
from mgrpo_lightning.errors import ConfigurationError, MgrpoError, ScoringError, ToolError
from mgrpo_lightning.policy.sampling.base import SamplingParams
from mgrpo_lightning.records.trajectory import Key, Message
from mgrpo_lightning.services.client import HOPELESS, HOPELESS_AT_FIRST, ServiceFailed
from mgrpo_lightning.services.endpoint import ChatEndpoint, EndpointConfig
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tools.web.web_search import WebSearch
from tests.agents.fakes import FakeChat
from tests.support.hostile_server import MODES, REFUSALS, SECRET, SPEAKING, WORDS, heard
from tests.tools.web.site import Site, said

TIMEOUT = 0.4
"""Seconds, where an answer is waited for in vain."""
VAIN = ("a byte every half second", "headers byte by byte", "silence")
Ask = Callable[[int], Awaitable[object]]


def judge(url: str, timeout: float) -> Ask:
    asked = Judge(url, "m", "SERVICE_KEY", timeout=timeout, attempts=1, backoff=0)
    return lambda number: asked.correct("Which river?", ["Danube"], f"river {number}")


def endpoint_role(url: str, timeout: float) -> Ask:
    endpoint = ChatEndpoint(EndpointConfig(url, "m", "SERVICE_KEY", timeout=timeout, attempts=1, backoff=0))

    async def ask(number: int) -> object:
        messages = [Message("user", f"river {number}")]
        conversation = EndpointConversation(
            endpoint,
            FakeChat(),  # type: ignore[arg-type]
            messages,
            length=10,
            key=Key(0, 0, 0, 0),
        )
        return await conversation.sample(SamplingParams(64, (), temperature=0.7), 0)

    return ask


def search(url: str, timeout: float) -> Ask:
    found = WebSearch("tavily", url, "SERVICE_KEY", timeout=timeout, attempts=1)
    tool = found.tool()
    return lambda number: tool(query=f"river {number}")


ASKERS: dict[str, tuple[Callable[[str, float], Ask], type[MgrpoError]]] = {
    "judge": (judge, ScoringError),
    "endpoint role": (endpoint_role, ServiceFailed),
    "search": (search, ToolError),
}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("SERVICE_KEY", SECRET)
    found = Site()
    yield found
    found.close()


def asker(site: Site, who: str, timeout: float = 30.0) -> tuple[Ask, type[MgrpoError]]:
    make, failure = ASKERS[who]
    return make(f"http://{site.host}/v1", timeout), failure


def answers(site: Site, mode: Callable[[], object]) -> None:
    site.pages["/v1"] = site.pages["/v1/chat/completions"] = heard(mode())  # type: ignore[arg-type]


async def ask_all(ask: Ask, failure: type[MgrpoError], count: int) -> tuple[list[MgrpoError], list[ConfigurationError]]:
    """Ask at once: what failed alone, and what ends the run."""
    found = await asyncio.gather(*(ask(number) for number in range(count)), return_exceptions=True)
    failed = [error for error in found if isinstance(error, failure)]
    ends = [error for error in found if isinstance(error, ConfigurationError)]
    assert len(failed) + len(ends) == count, found
    assert not [error for error in failed + ends if SECRET in str(error)]
    return failed, ends


ALWAYS = ("a byte every half second", "a gzip bomb", "deep lists", "a captcha", "a refusal of every request")
"""The modes that the suite has of all three; the others are slow."""
MATRIX = [pytest.param(who, mode, marks=[] if mode in ALWAYS else pytest.mark.slow) for mode in MODES for who in ASKERS]


@pytest.mark.parametrize(("who", "mode"), MATRIX)
def test_a_service_that_answers_nothing_is_bounded_told_once_and_ends_the_run(
    site: Site, who: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers(site, MODES[mode])
    ask, failure = asker(site, who, TIMEOUT if mode in VAIN else 30.0)
    started = time.monotonic()
    tracemalloc.start()
    with caplog.at_level(logging.WARNING):
        failed, ends = asyncio.run(ask_all(ask, failure, HOPELESS_AT_FIRST))
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(failed), len(ends)) == (HOPELESS_AT_FIRST - 1, 1)
    words = str(ends[0])
    assert "gave no usable answer to 8 requests in a row" in words
    assert "HINT" in words
    assert time.monotonic() - started < 60
    assert peak < HOPELESS_AT_FIRST * 16 * 2**20, "each of 200 MiB"
    told = [record.getMessage() for record in caplog.records if "/v1" in record.getMessage()]
    assert len(told) == 1 or mode in VAIN, told  # a busy machine may also be late to connect
    assert len(told) == len(set(told))
    assert SECRET not in told[0]
    if mode in SPEAKING:
        assert WORDS in told[0]
        assert WORDS in words
    assert "hidden" not in words + told[0], "what was asked is not told"


@pytest.mark.parametrize("who", ASKERS)
@pytest.mark.parametrize("mode", REFUSALS)
def test_a_service_that_refuses_whatever_it_is_asked_ends_the_run_at_once(site: Site, who: str, mode: str) -> None:
    answers(site, REFUSALS[mode])
    ask, failure = asker(site, who)
    _, (end,) = asyncio.run(ask_all(ask, failure, 1))
    assert WORDS in str(end)


@pytest.mark.parametrize("who", ASKERS)
def test_one_that_has_answered_before_may_be_away_for_a_while(site: Site, who: str) -> None:
    choice = {"message": {"content": "correct: yes"}}
    good = {"choices": [choice], "results": [{"url": "http://a.example"}]}
    answers(site, lambda: said(str(good).replace("'", '"').encode()))
    ask, failure = asker(site, who)
    asyncio.run(ask(-1))  # type: ignore[arg-type]
    answers(site, MODES["an error"])
    failed, _ = asyncio.run(ask_all(ask, failure, HOPELESS))
    assert len(failed) == HOPELESS - 1


@pytest.mark.parametrize("who", ASKERS)
def test_whoever_waits_for_a_dripping_answer_can_be_stopped(site: Site, who: str) -> None:
    begun = threading.Event()

    def dripping() -> Callable[[object], None]:
        slow = MODES["a byte every half second"]()

        def answer(handler: object) -> None:
            begun.set()
            slow(handler)  # type: ignore[arg-type]

        return answer

    answers(site, dripping)
    ask, _ = asker(site, who)

    async def stopped() -> None:
        waiting = asyncio.ensure_future(ask(0))
        await asyncio.to_thread(begun.wait, 10)
        waiting.cancel()
        await waiting

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(asyncio.wait_for(stopped(), 10))
