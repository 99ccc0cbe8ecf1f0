"""The web application behind ``mgrpo serve``: chat completions, the model's name, and a sign of life."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mgrpo_lightning.errors import DataError, MgrpoError
from mgrpo_lightning.records.trajectory import Trajectory
from mgrpo_lightning.serving.chat_format import ChatRequest, Reply, event, progress, read_request
from mgrpo_lightning.team import Answered, Team

PAUSE = 0.5
"""Seconds between two looks whether the client of a reply that is not streamed is still there."""


@dataclass(frozen=True)
class Limits:
    """What one server takes."""

    requests: int = 64
    """Questions in play at a time; more are refused with status 429."""
    body_bytes: int = 2**20
    """Size of a request's body; a larger one is refused with status 413 before it is read whole."""


class ChatServer:
    """Answers requests with a team.

    Args:
        team: The team, its weights loaded.
        name: Name of the model in replies.
        key: API key that clients must send; None: none is needed.
        limits: What it takes.
    """

    def __init__(self, team: Team, name: str, *, key: str | None = None, limits: Limits = Limits()) -> None:
        self._team = team
        self._name = name
        self._key = key
        self._limits = limits
        self._open = 0
        """Number of questions in play."""
        routes = [
            Route("/v1/chat/completions", self.complete, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
        ]
        self.app = Starlette(routes=routes)

    async def health(self, request: Request) -> Response:
        """Say that the server is there; needs no key."""
        return JSONResponse({"status": "ok", "questions": self._open})

    async def models(self, request: Request) -> Response:
        """Name the one model, the team."""
        if not self._known(request):
            return _error(HTTPStatus.UNAUTHORIZED, "the API key is missing or wrong.")
        return JSONResponse(
            {"object": "list", "data": [{"id": self._name, "object": "model", "created": 0, "owned_by": "mgrpo"}]}
        )

    async def complete(self, request: Request) -> Response:
        """Have the team answer one question."""
        if not self._known(request):
            return _error(HTTPStatus.UNAUTHORIZED, "the API key is missing or wrong.")
        try:
            asked = read_request(await self._body(request))
        except _TooLarge:
            return _error(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {self._limits.body_bytes} bytes."
            )
        except DataError as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        if self._open >= self._limits.requests:
            return _error(HTTPStatus.TOO_MANY_REQUESTS, f"{self._open} questions are in play; ask again later.")
        news: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def watch(trajectory: Trajectory) -> None:
            loop.call_soon_threadsafe(news.put_nowait, progress(trajectory))

        try:
            playing = self._team.submit(
                asked.text, temperature=asked.temperature, watch=watch if asked.stream else None
            )
        except DataError as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        except MgrpoError as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        self._open += 1
        playing.add_done_callback(lambda _: loop.call_soon_threadsafe(self._ended))
        reply = Reply(self._name)
        if asked.stream:
            return StreamingResponse(_stream(playing, news, reply, asked), media_type="text/event-stream")
        return await _whole(request, playing, reply)

    def _ended(self) -> None:
        self._open -= 1

    def _known(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        return self._key is None or hmac.compare_digest(given.encode(), self._key.encode())

    async def _body(self, request: Request) -> object:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self._limits.body_bytes:
                raise _TooLarge
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the body is no JSON: {error}", hint="send a JSON object.") from error


class _TooLarge(Exception):
    """The body of a request is larger than the limit."""


async def _whole(request: Request, playing: Future[Answered], reply: Reply) -> Response:
    """Wait for the answer; if the client goes away, stop to play."""
    answered = asyncio.wrap_future(playing)
    try:
        while not (await asyncio.wait([answered], timeout=PAUSE))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return JSONResponse(reply.whole(answered.result()))
    except (MgrpoError, OSError) as error:
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
    finally:
        playing.cancel()  # does nothing to a play that has ended


async def _stream(
    playing: Future[Answered], news: asyncio.Queue[str], reply: Reply, asked: ChatRequest
) -> AsyncIterator[str]:
    """The events of one reply: what the team does, then its answer. Starlette closes it if the client goes away."""
    answered = asyncio.wrap_future(playing)
    try:
        yield reply.chunk({"role": "assistant", "content": ""})
        while not answered.done():
            new = asyncio.ensure_future(news.get())
            waiting: list[asyncio.Future[Any]] = [answered, new]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if new.done() and new.result():
                yield reply.chunk({"reasoning_content": new.result()})
            new.cancel()
        while not news.empty():
            if text := news.get_nowait():
                yield reply.chunk({"reasoning_content": text})
        for one in reply.end(answered.result(), with_usage=asked.usage):
            yield one
    except (MgrpoError, OSError) as error:
        yield event({"error": {"message": str(error), "type": "server_error", "code": 503}})
    finally:
        playing.cancel()


def _error(status: HTTPStatus, message: str) -> Response:
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        headers["Retry-After"] = "1"
    return JSONResponse(
        {"error": {"message": message, "type": kind, "code": int(status)}}, status_code=status, headers=headers
    )
