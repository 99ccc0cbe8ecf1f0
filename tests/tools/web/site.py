"""A web site on loopback whose pages misbehave on purpose."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """Answers by path; ``asked`` lists what was asked for, ``opened`` and ``closed`` the ports of connections.

    Args:
        protocol: ``HTTP/1.1`` keeps connections open.
    """

    def __init__(self, protocol: str = "HTTP/1.0") -> None:
        self.pages: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.opened: list[int] = []
        self.closed: set[int] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = protocol
            disable_nagle_algorithm = True  # else each answer on a kept connection waits 40 ms

            def setup(self) -> None:
                super().setup()
                outer.opened.append(self.client_address[1])

            def finish(self) -> None:
                with contextlib.suppress(OSError):
                    super().finish()
                outer.closed.add(self.client_address[1])

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                with contextlib.suppress(OSError):  # the client has had enough
                    outer.pages[self.path.partition("?")[0]](self)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Http(ThreadingHTTPServer):
            request_queue_size = 64  # all that ask at once are heard

        self._http = Http(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def all_closed(self) -> bool:
        """Whether the clients have closed all connections; waits a while for it."""
        for _ in range(1000):
            if self.closed >= set(self.opened):
                return True
            time.sleep(0.01)
        return False

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def said(body: bytes, kind: str = "text/html; charset=utf-8", status: int = 200, **headers: str) -> Answer:
    """A whole answer."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def moved(to: str, body: bytes = b"", **headers: str) -> Answer:
    """A redirect."""
    return said(body, status=302, Location=to, **headers)


def dripping(piece: bytes, pause: float) -> Answer:
    """A body that never ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        while True:
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(pause)

    return answer


class Crowd:
    """An answer that takes a while, and counts how many wait for it at the same time."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.05)
        with self._lock:
            self._now -= 1
        self._answer(handler)
