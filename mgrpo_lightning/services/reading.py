"""What a server sends, read within bounds of bytes and depth: bodies, JSON, how long to wait, and its own words."""

from __future__ import annotations

import email.utils
import json
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2

MAX_BYTES = 4 * 2**20
"""Of one answer, as sent and as unpacked."""
MAX_DEPTH = 64
"""Of objects and lists inside of each other."""
LONGEST_PAUSE = 60.0
"""Seconds that a server may ask to wait."""
LONGEST_WORDS = 300
"""Characters of a server's words that are shown."""
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,1000})", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
SILENT = "unresponsive_engines"
"""Where SearXNG lists those of its engines that gave no answer, each with the reason."""
_TOLD = ("message", "msg", "detail", "error", "errors", "error_description", "title", "reason", SILENT)
"""Keys under which servers say what is wrong."""


class UnusableAnswer(ValueError):
    """An answer that is too large, wrongly packed, or not what was asked for; the message says which."""


async def read_body(response: httpx2.Response, max_bytes: int) -> bytes:
    """The body of a streamed answer, unpacked.

    Args:
        response: Of a request that accepts gzip alone.
        max_bytes: Bound on the body, as sent and as unpacked.

    Raises:
        UnusableAnswer: It is larger, or packed in another way.
    """
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing == "gzip":
        return _unpacked(bytes(body), max_bytes)
    if packing != "identity":
        raise UnusableAnswer(f"it is packed as {packing[:40]!r}, which was not asked for")
    return bytes(body)


def _unpacked(body: bytes, max_bytes: int) -> bytes:
    try:
        unpacked = zlib.decompressobj(wbits=31).decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise UnusableAnswer("it cannot be unpacked") from error
    if len(unpacked) > max_bytes:
        raise _too_large(max_bytes)
    return unpacked


def _too_large(max_bytes: int) -> UnusableAnswer:
    return UnusableAnswer(f"it is larger than {max_bytes:,} bytes")


def parse_json(body: bytes | str) -> Any:
    """A JSON document no deeper than ``MAX_DEPTH``, so that whatever reads it may recurse.

    Args:
        body: Text, or UTF-8, UTF-16 or UTF-32.

    Raises:
        UnusableAnswer: It is no JSON, or deeper.
    """
    try:
        found = json.loads(body)
    except RecursionError as error:
        raise UnusableAnswer("its JSON is nested too deeply") from error
    except ValueError as error:
        raise UnusableAnswer("it is no JSON") from error
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [child for one in level for child in _children(one)]
        if not level:
            return found
    raise UnusableAnswer("its JSON is nested too deeply")


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def retry_after(value: str | None, otherwise: float) -> float:
    """Seconds to wait before another try, at most ``LONGEST_PAUSE``.

    Args:
        value: The header ``Retry-After``: seconds, or a date.
        otherwise: Seconds where it says neither.
    """
    if value is None:
        return otherwise
    if _SECONDS.fullmatch(value.strip()):
        return min(float(value), LONGEST_PAUSE)
    try:
        date = email.utils.parsedate_to_datetime(value)
        if date.tzinfo is None:  # "-0000": in UTC
            date = date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return otherwise
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def words_of(body: bytes) -> str:
    """What a server says in an answer that is none: the message of an error object, the title of a page, or its text.

    Args:
        body: The answer.

    Returns:
        One line of at most ``LONGEST_WORDS`` characters; "" if it says nothing.
    """
    try:
        found = parse_json(body)
    except UnusableAnswer:
        found = None
    text = "; ".join(_messages(found))
    if not text and isinstance(found, dict):  # it may repeat what was asked, so its values are not shown
        text = f"JSON with the keys {', '.join(found)}"
    if not text:
        start = body[: 64 * LONGEST_WORDS].decode("utf-8", "replace")
        title = _TITLE.search(start)
        text = title[1] if title else _TAG.sub(" ", start)
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= LONGEST_WORDS else f"{line[:LONGEST_WORDS]}..."


def _messages(value: object) -> Iterator[str]:
    """The texts of an error object, and of nothing else: some servers repeat there what they were asked."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _messages(one)
    elif isinstance(value, dict):
        place = value.get("loc")
        if isinstance(place, list) and isinstance(value.get("msg"), str):  # as FastAPI lists what it refuses
            yield f"{'.'.join(map(str, place))}: {value['msg']}"
        else:
            for name in _TOLD:
                if value.get(name):
                    yield from _messages(value[name])
                    return
