"""The viewer's HTTP server on loopback: static files, and data read on request; refuses other hosts and sites."""

from __future__ import annotations

import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.viewer.site import Site, static

HOST = "127.0.0.1"
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "md": "text/plain", "LICENSE": "text/plain"}
_STATIC = re.compile(r"(?:js/|vendor/)?[\w.]+")
_SEARCH = re.compile(r"data/search/(\d{1,9})\.js")
_GROUP = re.compile(r"data/(\d{1,6})/([\w-]{1,60})/(\d{1,9})\.js")


class Server(ThreadingHTTPServer):
    """HTTP server of one site, reachable from this machine only.

    Args:
        site: Content of the page.
        port: Port on loopback; 0 takes a free port.

    Raises:
        ConfigurationError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site = site
        self.lock = threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigurationError(
                f"port {port} cannot be used: {error.strerror}.", hint="give another --port, or 0 for a free one."
            ) from error

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        # Other web sites must not read the data. A site that rebinds its DNS name to loopback sends its own name as
        # Host. A site that loads our scripts is refused by Sec-Fetch-Site, and by Cross-Origin-Resource-Policy.
        # A clicked link to a rollout is allowed: it opens our page, which then asks for its data itself.
        path = urlsplit(self.path).path.lstrip("/") or "index.html"
        named = self.headers.get("Host", "").rpartition(":")[0] in (HOST, "localhost")
        clicked = self.headers.get("Sec-Fetch-Dest") == "document" and not path.startswith("data/")
        if not named or not (clicked or self.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")):
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for this machine alone")
            return
        found = self._found(path)
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such thing")
        else:
            kind = _TYPES.get(path.rpartition(".")[2], "application/octet-stream")
            self._send(HTTPStatus.OK, kind, found)

    def _found(self, path: str) -> bytes | None:
        if not path.startswith("data/"):
            return self._static(path)
        if match := _SEARCH.fullmatch(path):  # no lock: a slow search changes no state and must not block the page
            (text,) = parse_qs(urlsplit(self.path).query).get("text", [""])[:1]
            return self.server.site.search(int(match[1]), text).encode() if text else None
        return self._data(path)

    def _data(self, path: str) -> bytes | None:
        site = self.server.site
        with self.server.lock:  # the site's caches are not thread-safe
            if path == "data/state.js":
                return site.state().encode()
            if path == "data/index.js":
                return site.index().encode()
            match = _GROUP.fullmatch(path)
            found = site.group(int(match[1]), match[2], int(match[3])) if match else None
            return None if found is None else found.encode()

    def _static(self, path: str) -> bytes | None:
        if not _STATIC.fullmatch(path) or ".." in path:
            return None
        found = static().joinpath(*path.split("/"))
        return found.read_bytes() if found.is_file() else None

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        pass  # one line for each request would hide the other output
