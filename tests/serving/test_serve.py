"""A real ``mgrpo serve`` of the embedded team, asked with the ``openai`` client and with raw requests."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.commands.serve import main as serve
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.tasks import Factbook

KEY = "a-key"
PERU = "What is the capital of Peru?"


class Served:
    """A server in a process of its own."""

    def __init__(self, root: Path, *options: str) -> None:
        words = [sys.executable, "-m", "mgrpo_lightning", "serve", "configs/quickstart.yaml", "--port", "0", *options]
        environment = {**os.environ, "SERVER_KEY": KEY}
        self.process = subprocess.Popen(
            words, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", self.line)
        assert found, self.line + self.process.communicate()[1]
        self.url = found[0]

    def client(self, key: str = KEY) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def questions(self) -> int:
        return int(httpx2.get(f"{self.url}/health").json()["questions"])

    def end(self, number: signal.Signals) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Served]:
    one = Served(root, "--api_key_env", "SERVER_KEY", "--name", "factbook", "--max_requests", "32")
    yield one
    one.process.kill()
    one.process.communicate()


def ask(client: openai.OpenAI, text: str) -> str | None:
    reply = client.chat.completions.create(model="factbook", messages=[{"role": "user", "content": text}])
    return reply.choices[0].message.content


def test_a_question_is_answered(served: Served) -> None:
    client = served.client()
    assert [model.id for model in client.models.list()] == ["factbook"]
    reply = client.chat.completions.create(model="factbook", messages=[{"role": "user", "content": PERU}])
    assert reply.choices[0].message.content == "Lima"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 100
    assert reply.model_extra == {"mgrpo": {"violations": [], "calls": {"searcher": 1, "search": 1, "visit": 1}}}


def test_a_stream_shows_what_the_team_does_and_then_the_answer(served: Served) -> None:
    stream = served.client().chat.completions.create(
        model="factbook",
        messages=[{"role": "user", "content": PERU}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    doing = "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas)
    assert "".join(delta.content or "" for delta in deltas) == "Lima"
    assert 'main calls searcher({"task": "capital of Peru"})' in doing
    assert "searcher reports: Lima" in doing
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_thirty_two_at_once_are_those_asked_alone_and_one_more_is_refused(served: Served) -> None:
    questions = [question.text for question in Factbook(hops=[1, 2]).questions("validation")[:32]]
    client = served.client()
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(ask, client, text) for text in questions]
        give_up = time.monotonic() + 60
        while served.questions() < 32 and time.monotonic() < give_up:
            assert not all(one.done() for one in asked)
        with pytest.raises(openai.RateLimitError, match="32 questions are in play"):
            ask(client, PERU)
        together = [one.result() for one in asked]
    assert together[:3] == [ask(client, text) for text in questions[:3]]
    assert all(together)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_leaves_the_batch(served: Served, stream: bool) -> None:
    body = {"model": "factbook", "messages": [{"role": "user", "content": PERU}], "temperature": 1.9, "stream": stream}
    # Its own time limit makes the client close the connection.
    head = {"Authorization": f"Bearer {KEY}"}
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(f"{served.url}/v1/chat/completions", headers=head, json=body, timeout=0.05)
    give_up = time.monotonic() + 30
    while served.questions() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert served.questions() == 0
    assert ask(served.client(), PERU) == "Lima"


def test_a_wrong_key_is_told(served: Served) -> None:
    for key in ("another", "é"):
        reply = httpx2.get(f"{served.url}/v1/models", headers={b"Authorization": f"Bearer {key}".encode()})
        assert reply.status_code == 401
    with pytest.raises(openai.AuthenticationError, match="the API key is missing or wrong"):
        ask(served.client("another"), PERU)


def test_what_cannot_be_served_is_told_with_its_status(served: Served) -> None:
    head = {"Authorization": f"Bearer {KEY}"}
    url = f"{served.url}/v1/chat/completions"

    def post(body: bytes) -> tuple[int, str]:
        reply = httpx2.post(url, headers=head, content=body)
        return reply.status_code, reply.json()["error"]["message"]

    assert post(b"x" * 10 * 2**20) == (413, "the body has more than 1048576 bytes.")
    for broken in (b"", b"{", b"\xff", b"[" * 100_000):
        assert post(broken)[0] == 400
    long = json.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 5000}]})
    status, told = post(long.encode())
    assert status == 400
    assert re.match(r"the question 'word word .*' makes a prompt of \d+ tokens, but main's context has 512", told)
    with pytest.raises(openai.BadRequestError, match="a team cannot use n = 2"):
        served.client().chat.completions.create(model="m", messages=[{"role": "user", "content": PERU}], n=2)
    assert httpx2.get(url).status_code == 405
    assert httpx2.get(f"{served.url}/nothing").status_code == 404
    assert served.process.poll() is None


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_it_ends_within_seconds_while_it_answers(root: Path, number: signal.Signals) -> None:
    served = Served(root)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, served.client(), "Which? " * 20)
        while served.questions() == 0 and not asked.done():
            time.sleep(0.005)
        started = time.monotonic()
        status, out, err = served.end(number)
        assert time.monotonic() - started < 20
        assert status == 0, err
        assert out == "stopped\n"
        assert "Traceback" not in err
        if (error := asked.exception()) is not None:
            assert isinstance(error, openai.APIError)


@pytest.mark.slow
def test_a_killed_server_is_a_connection_error(root: Path) -> None:
    served = Served(root)
    served.end(signal.SIGKILL)
    with pytest.raises(openai.APIConnectionError):
        ask(served.client(), PERU)


def test_addresses_are_checked_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    team = str(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigurationError, match=r"--host 0\.0\.0\.0 is reachable from other machines"):
        serve([team, "--host", "0.0.0.0"])
    with pytest.raises(ConfigurationError, match="environment variable 'NO_KEY', which is not set"):
        serve([team, "--api_key_env", "NO_KEY"])
    with pytest.raises(ConfigurationError, match=r"--port is 99999"):
        serve([team, "--port", "99999"])
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="cannot be used"):
        serve([team, "--port", str(taken.getsockname()[1])])
    with pytest.raises(ConfigurationError, match="is not a run folder"):
        serve([team, "--port", "0"])


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "mgrpo_lightning.commands.serve")
    with pytest.raises(SystemExit):
        main(["serve", "runs/none"])
    assert "pip install 'mgrpo-lightning[serve]'" in capsys.readouterr().err
