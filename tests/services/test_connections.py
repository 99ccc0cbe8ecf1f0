"""Connections are kept between requests, never beyond their event loop; one that the server closed costs nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.services.client import Patience, Service, ServiceFailed
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tools.web.fetch import FetchConfig, Fetcher
from tests.services.test_hostile import ASKERS, Ask
from tests.support.hostile_server import heard
from tests.tools.web.site import Answer, Site, said

GOOD = {"choices": [{"message": {"content": "correct: yes"}}], "results": [{"url": "http://a.example"}]}


def page(site: Site) -> Ask:
    fetcher = Fetcher(FetchConfig(allowed=(site.host,)))
    return lambda number: fetcher.get(f"http://{site.host}/v1?{number}")


def asker(site: Site, who: str) -> Ask:
    return page(site) if who == "page" else ASKERS[who][0](f"http://{site.host}/v1", 30.0)


WHO = [*ASKERS, "page"]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("SERVICE_KEY", "key")
    found = Site("HTTP/1.1")
    answers(found, said(json.dumps(GOOD).encode(), "application/json"))
    yield found
    found.close()


def answers(site: Site, answer: Answer) -> None:
    site.pages["/v1"] = site.pages["/v1/chat/completions"] = heard(answer)


async def in_turn(ask: Ask, count: int) -> None:
    for number in range(count):
        await ask(number)


@pytest.mark.parametrize("who", WHO)
def test_requests_share_a_connection_and_the_loop_closes_it(site: Site, who: str) -> None:
    ask = asker(site, who)
    asyncio.run(in_turn(ask, 10))
    assert len(site.asked) == 10
    assert len(site.opened) == 1
    assert site.all_closed()
    asyncio.run(in_turn(lambda number: ask(10 + number), 10))
    assert len(site.opened) == 2, "another loop has a connection of its own"
    assert site.all_closed()


def test_no_more_connections_than_requests_at_once(site: Site) -> None:
    judge = Judge(f"http://{site.host}/v1", "m", concurrency=3)

    async def ask_all() -> None:
        await asyncio.gather(*(judge.correct("Which river?", ["Danube"], str(number)) for number in range(30)))

    asyncio.run(ask_all())
    assert len(site.asked) == 30
    assert len(site.opened) <= 3


def test_loops_that_run_at_once_share_nothing(site: Site) -> None:
    ask = asker(site, "judge")
    barrier = threading.Barrier(2)

    def run(first: int) -> None:
        async def asked() -> None:
            await ask(first)
            await asyncio.to_thread(barrier.wait, 30)  # both hold their connection now
            await in_turn(lambda number: ask(first + 1 + number), 3)

        asyncio.run(asked())

    threads = [threading.Thread(target=run, args=(first,)) for first in (0, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.asked) == 8
    assert len(site.opened) == 2
    assert site.all_closed()


def _closes_behind(handler: BaseHTTPRequestHandler) -> None:
    """Answers, and closes the connection without a word."""
    said(json.dumps(GOOD).encode(), "application/json")(handler)
    handler.close_connection = True


def _closes_on_use(handler: BaseHTTPRequestHandler) -> None:
    """Answers the first request of a connection, and closes it when the second one arrives."""
    if hasattr(handler, "used"):
        handler.close_connection = True
        return
    handler.used = True  # type: ignore[attr-defined]
    said(json.dumps(GOOD).encode(), "application/json")(handler)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("closes", [_closes_behind, _closes_on_use])
def test_a_connection_that_the_server_closed_while_it_was_idle_is_no_failure(
    site: Site, who: str, closes: Answer
) -> None:
    answers(site, closes)
    asyncio.run(in_turn(asker(site, who), 5))  # each may be tried once only
    assert len(site.opened) == 5


@pytest.mark.parametrize("who", WHO)
def test_a_new_connection_that_is_closed_without_an_answer_is_a_failure(site: Site, who: str) -> None:
    answers(site, lambda handler: setattr(handler, "close_connection", True))
    with pytest.raises(MgrpoError):
        asyncio.run(in_turn(asker(site, who), 1))
    assert len(site.asked) == 1


def _too_long(handler: BaseHTTPRequestHandler) -> None:
    said(b" " * 5 * 2**20, "application/json")(handler)


class Late:
    """An answer that comes after the client has given up."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        self.over.wait(30)
        said(b'{"number": -1}', "application/json")(handler)


@pytest.mark.parametrize("bad", [_too_long, Late()])
def test_the_rest_of_a_failed_answer_is_not_taken_for_the_next_one(site: Site, bad: Answer) -> None:
    service = Service("service", f"http://{site.host}/v1", Patience(0.5, 1, 0, 1), refused="")
    numbers = iter(range(10))

    def numbered(handler: BaseHTTPRequestHandler) -> None:
        said(json.dumps({"number": next(numbers)}).encode(), "application/json")(handler)

    async def ask() -> object:
        return await service.ask("GET", service.url, lambda answer: answer.json()["number"], headers={})

    async def ask_all() -> list[object]:
        answers(site, numbered)
        found = [await ask(), await ask()]
        answers(site, bad)
        with pytest.raises(ServiceFailed):
            await ask()
        answers(site, numbered)
        if isinstance(bad, Late):
            bad.over.set()
        return [*found, await ask(), await ask()]

    assert asyncio.run(ask_all()) == [0, 1, 2, 3]
    assert len(site.opened) == 2
    assert site.all_closed()


@pytest.mark.parametrize("who", WHO)
def test_a_cancelled_request_leaves_no_connection(site: Site, who: str) -> None:
    begun, over = threading.Event(), threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        begun.set()
        over.wait(30)

    ask = asker(site, who)

    async def cancelled() -> Awaitable[object]:
        await ask(0)
        answers(site, silent)
        waiting = asyncio.ensure_future(ask(1))
        await asyncio.to_thread(begun.wait, 30)
        waiting.cancel()
        return waiting

    asyncio.run(cancelled())
    over.set()
    assert site.all_closed()


def test_no_request_carries_a_cookie_of_an_earlier_one(site: Site) -> None:
    sent: list[str | None] = []

    def cookie(handler: BaseHTTPRequestHandler) -> None:
        sent.append(handler.headers["Cookie"])
        said(json.dumps(GOOD).encode(), "application/json", Set_Cookie="session=1; Path=/")(handler)

    answers(site, cookie)
    for who in WHO:
        asyncio.run(in_turn(asker(site, who), 2))
    assert sent == [None] * 2 * len(WHO)
