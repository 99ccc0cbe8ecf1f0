"""SIGINT and SIGTERM end a play or a scoring that waits for a service which never answers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from mgrpo_lightning.agents.scoring import score_groups
from mgrpo_lightning.errors import Interrupted
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.process.stopping import Stopping, heard
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Segment, Span, Trajectory
from mgrpo_lightning.tasks.judge import Judge
from tests.agents.fakes import FakeTask, duo, question
from tests.services.test_hostile import ASKERS, Ask, asker
from tests.tools.web.site import Site

FOR_EVER = 12.0
"""Seconds after which the server gives up, so that a test that fails ends."""


class Silent:
    """A server that reads a request and says nothing; whoever waits for it gets the signal."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number
        self.over = threading.Event()
        self.waited_in_vain = False

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"] or 0))
        os.kill(os.getpid(), self.number)
        self.waited_in_vain = not self.over.wait(FOR_EVER)


class JudgedTask(FakeTask):
    """Its judge is asked for everything."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._judge = Judge(url, "m", timeout=FOR_EVER, attempts=3)

    async def correct(self, question: Question, answer: str | None) -> float:
        return float(await self._judge.correct(question.text, question.answers, answer or ""))


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def silent(request: pytest.FixtureRequest) -> Silent:
    return Silent(request.param)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, silent: Silent) -> Iterator[Site]:
    monkeypatch.setenv("SERVICE_KEY", "key")
    found = Site()
    found.pages["/v1"] = found.pages["/v1/chat/completions"] = silent
    yield found
    silent.over.set()
    found.close()


def scored(site: Site) -> None:
    said = Segment([Span("action", (2,), (-0.5,))])
    main = Trajectory("main", Key(0, 0, 0, 0), "task", answer="Rhine", segments=[said])
    score_groups(
        [Group(question("Which river?", "Danube"), [Rollout(main)])], JudgedTask(f"http://{site.host}/v1"), duo()
    )


def played(who: str) -> Callable[[Site], object]:
    def play(site: Site) -> object:
        ask, _ = asker(site, who, FOR_EVER)
        return Scheduler().play([_ask(ask)])

    return play


async def _ask(ask: Ask) -> None:
    await ask(0)


WAITS = {"scoring": scored, **{who: played(who) for who in ASKERS}}


@pytest.mark.parametrize("wait", WAITS.values(), ids=list(WAITS))
def test_a_wait_for_a_service_that_never_answers_ends_with_a_signal(
    site: Site, silent: Silent, wait: Callable[[Site], object]
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without it
    try:
        with heard(Stopping().hear, silent.number), pytest.raises(Interrupted):
            wait(site)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not silent.waited_in_vain
    assert len(site.asked) == 1, "and it is not asked again"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("agents", "scoring"))]
