"""What a service on loopback may do wrong: one answer of ``tests.tools.web.site.Site`` a mode."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler

from tests.tools.web.site import Answer, said

WORDS = "temperature 0 is refused here"
"""What a server says that has reasons."""
SECRET = "sk-very-secret"
MEBIBYTE = 2**20


def heard(answer: Answer) -> Answer:
    """An answer to a request that is read first: a connection that closes before is another fault."""

    def whole(handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"] or 0))
        answer(handler)

    return whole


def _streaming(piece: bytes, pause: float, pieces: int) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.end_headers()
        for _ in range(pieces):
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(pause)

    return answer


def _slow_headers(handler: BaseHTTPRequestHandler) -> None:
    for _ in range(200):  # the client has had enough long before
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.05)


def _ended_early(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')


@cache
def _bomb(mebibytes: int) -> bytes:
    return gzip.compress(b" " * (mebibytes * MEBIBYTE))


def _json(value: object, status: int = 200, **headers: str) -> Answer:
    return said(json.dumps(value).encode(), "application/json", status, **headers)


MODES: dict[str, Callable[[], Answer]] = {
    "a byte every half second": lambda: _streaming(b" ", 0.05, 200),
    "headers byte by byte": lambda: _slow_headers,
    "silence": lambda: lambda handler: time.sleep(2),
    "a body without an end": lambda: _streaming(b" " * MEBIBYTE, 0, 200),
    "a gzip bomb": lambda: said(_bomb(200), "application/json", Content_Encoding="gzip"),
    "a bomb behind status 500": lambda: said(_bomb(200), status=500, Content_Encoding="gzip"),
    "a packing that nobody asked for": lambda: said(b"x", Content_Encoding="br"),
    "no gzip": lambda: said(b"x", Content_Encoding="gzip"),
    "deep lists": lambda: said(b"[" * 100_000 + b"]" * 100_000, "application/json"),
    "deep objects": lambda: said(b'{"choices":' * 500 + b"1" + b"}" * 500, "application/json"),
    "not UTF-8": lambda: said(b'{"choices": "\xff\xfe"}', "application/json"),
    "a captcha": lambda: said(f"<html><title>{WORDS}</title><body>{'x' * 5000}</body></html>".encode()),
    "an error with status 200": lambda: _json({"error": {"message": WORDS}}),
    "a refusal of every request": lambda: _json({"error": {"message": WORDS, "type": "bad"}}, 400),
    "a refusal that lists fields": lambda: _json(
        {"detail": [{"loc": ["body", "n"], "msg": WORDS, "input": "hidden"}]}, 422
    ),
    "an odd Retry-After": lambda: _json({"message": WORDS}, 429, Retry_After="\xb2"),
    "an error": lambda: said(WORDS.encode(), "text/plain", 503, Retry_After="-1"),
    "an answer that ends early": lambda: _ended_early,
    "a closed connection": lambda: lambda handler: handler.connection.close(),
    "nothing": lambda: said(b"", "application/json"),
    "null": lambda: _json(None),
    "numbers for texts": lambda: _json({"choices": [{"message": {"content": 5}}], "results": [5]}),
}
"""Each is a service that answers nothing that can be used, whatever it is asked."""
REFUSALS: dict[str, Callable[[], Answer]] = {
    "a wrong key": lambda: _json({"error": {"message": f"{WORDS}: {SECRET}"}}, 401),
    "a wrong model": lambda: _json({"message": WORDS}, 404),
    "a used-up plan": lambda: said(WORDS.encode(), "text/plain", 402),
    "an address elsewhere": lambda: said(WORDS.encode(), "text/plain", 302, Location="/"),
}
"""Each is one that says so at the first request."""
SPEAKING = [
    *("a captcha", "an error with status 200", "a refusal of every request", "a refusal that lists fields"),
    *("an odd Retry-After", "an error"),
]
"""Those of ``MODES`` that say ``WORDS``."""
