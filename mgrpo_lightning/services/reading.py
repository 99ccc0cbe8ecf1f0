"""Read HTTP responses: body and gzip within a size, JSON within a depth, ``Retry-After``, a server's error message."""

from __future__ import annotations

import email.utils
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2

MAX_BYTES = 4 * 2**20
"""Default maximum bytes of a response body, both compressed and decompressed."""
MAX_DEPTH = 64
"""Maximum nesting of objects and lists in JSON."""
LONGEST_PAUSE = 60.0
"""Maximum seconds that a ``Retry-After`` header can delay a retry."""
LONGEST_WORDS = 300
"""Maximum characters shown of a server's error message."""
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)
"""Errors of a reader that gets JSON of another form than it expects."""
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,1000})", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
SILENT = "unresponsive_engines"
"""Key under which SearXNG lists its engines that did not answer, with reasons."""
_TOLD = ("message", "msg", "detail", "error", "errors", "error_description", "title", "reason", SILENT)
"""Keys that hold the error message in the JSON of common servers, in order of preference."""


class UnusableAnswer(ValueError):
    """A response that is too large, wrongly compressed, or of the wrong content; the message says which."""


@dataclass(frozen=True)
class Answer:
    """The body and media type of a successful response."""

    body: bytes
    kind: str
    """Media type in lower case; "" if the response names none."""

    def json(self) -> Any:
        """The body, parsed as JSON.

        Raises:
            UnusableAnswer: The body is not JSON, or is nested too deeply.
        """
        return parse_json(self.body)


async def read_body(response: httpx2.Response, max_bytes: int) -> bytes:
    """Read and decompress the body of a streamed response.

    Args:
        response: A streamed response. Its request must accept gzip only.
        max_bytes: Maximum bytes of the body, both compressed and decompressed.

    Raises:
        UnusableAnswer: The body is larger, or compressed in another way than gzip.
    """
    # Raw bytes: the client's own decompression has no size limit, so a small body could fill the memory.
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing == "gzip":
        return _unpacked(bytes(body), max_bytes)
    if packing != "identity":
        raise UnusableAnswer(f"it is compressed as {packing[:40]!r}, which was not requested")
    return bytes(body)


def _unpacked(body: bytes, max_bytes: int) -> bytes:
    # wbits=31 means gzip. One byte above the limit is enough to see that the body is too large.
    try:
        unpacked = zlib.decompressobj(wbits=31).decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise UnusableAnswer("it cannot be decompressed") from error
    if len(unpacked) > max_bytes:
        raise _too_large(max_bytes)
    return unpacked


def _too_large(max_bytes: int) -> UnusableAnswer:
    return UnusableAnswer(f"it is larger than {max_bytes:,} bytes")


def parse_json(body: bytes | str) -> Any:
    """Parse JSON that is nested at most ``MAX_DEPTH`` deep, so that recursive readers are safe.

    Args:
        body: Text, or bytes in UTF-8, UTF-16 or UTF-32.

    Raises:
        UnusableAnswer: The body is not JSON, or is nested too deeply.
    """
    try:
        found = json.loads(body)
    except RecursionError as error:
        raise UnusableAnswer("its JSON is nested too deeply") from error
    except ValueError as error:
        raise UnusableAnswer("it is not JSON") from error
    # Walk level by level: a recursive check could itself exceed the recursion limit.
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
    """Seconds to wait before the next try: from the header, at most ``LONGEST_PAUSE``, or else the default.

    Args:
        value: The ``Retry-After`` header (seconds or an HTTP date), or None.
        otherwise: Default in seconds, if the header is missing or invalid.
    """
    if value is None:
        return otherwise
    if _SECONDS.fullmatch(value.strip()):
        return min(float(value), LONGEST_PAUSE)
    try:
        date = email.utils.parsedate_to_datetime(value)
        if date.tzinfo is None:  # email.utils returns a naive date for the zone "-0000", which means UTC
            date = date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return otherwise
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def words_of(body: bytes) -> str:
    """Extract the error message from an error response: from a JSON object, a page's title, or a page's text.

    Args:
        body: Body of the response.

    Returns:
        One line of about ``LONGEST_WORDS`` characters at most; "" if there is no text.
    """
    try:
        found = parse_json(body)
    except UnusableAnswer:
        found = None
    text = "; ".join(_messages(found))
    if not text and isinstance(found, dict):  # only keys: the values may repeat the request
        text = f"JSON with the keys {', '.join(found)}"
    if not text:
        # The start is enough: an error page may have megabytes.
        start = body[: 64 * LONGEST_WORDS].decode("utf-8", "replace")
        title = _TITLE.search(start)
        text = title[1] if title else _TAG.sub(" ", start)
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= LONGEST_WORDS else f"{line[:LONGEST_WORDS]}..."


def _messages(value: object) -> Iterator[str]:
    """The messages of an error object. Other values are left out, because some servers repeat the request in them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _messages(one)
    elif isinstance(value, dict):
        place = value.get("loc")
        if isinstance(place, list) and isinstance(value.get("msg"), str):  # a validation error of FastAPI
            yield f"{'.'.join(map(str, place))}: {value['msg']}"
        else:
            for name in _TOLD:
                if value.get(name):
                    yield from _messages(value[name])
                    return
