"""The server: this machine alone, only its own files, and data that no text can break out of."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.viewer.server import Server
from mgrpo_lightning.viewer.site import Site
from mgrpo_lightning.viewer.sources import Source
from tests.viewer.runs import write_run

HOSTILE = "</script><script>alert(1)</script>\u2028<!-- <img src=x onerror=alert(1)> \u202e <|im_start|> \x00\x1b[2J"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(Site([Source(write_run(tmp_path / "run", text=HOSTILE))], live=True)) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def get(server: Server, path: str, host: str | None = None, **more: str) -> tuple[int, bytes, dict[str, str]]:
    headers = {name.replace("_", "-"): value for name, value in more.items()} | ({"Host": host} if host else {})
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    found = response.status, response.read(), {key.lower(): value for key, value in response.getheaders()}
    connection.close()
    return found


def test_the_page_its_files_and_its_data(server: Server) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/index.html", "text/html"),
        ("/app.css", "text/css"),
        ("/js/app.js", "text/javascript"),
        ("/vendor/uPlot.iife.min.js", "text/javascript"),
        ("/data/index.js?17", "text/javascript"),
        ("/data/state.js", "text/javascript"),
        ("/data/0/step-000001/0.js", "text/javascript"),
        ("/data/search/1.js?text=peak%3F", "text/javascript"),
    ):
        status, body, headers = get(server, path)
        assert (status, headers["content-type"]) == (200, f"{kind}; charset=utf-8"), path
        assert body
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py",
        "/js/../../server.py",
        "/js/%2e%2e/%2e%2e/server.py",
        "//etc/passwd",
        "/js/",
        "/js",
        "/vendor/nothing.js",
        "/data/../index.html",
        "/data/0/..%2f..%2fx/0.js",
        "/data/7/step-000001/0.js",
        "/data/0/step-000001/99999999999.js",
        "/data/0/step-000001/-1.js",
        "/data",
        "/data/search/1.js",
        "/data/search/x.js?text=peak",
    ],
)
def test_nothing_else_is_there(server: Server, path: str) -> None:
    assert get(server, path)[0] == 404


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:80", "127.0.0.1.attacker.example:80", ""])
def test_a_name_that_was_made_to_lead_here_gets_nothing(server: Server, host: str) -> None:
    assert get(server, "/data/index.js", host=host or " ")[0] == 403
    assert get(server, "/data/index.js", host=f"localhost:{server.server_address[1]}")[0] == 200


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)]
)
def test_a_page_from_elsewhere_cannot_read_scripts_from_here(server: Server, site: str, status: int) -> None:
    assert get(server, "/data/index.js", Sec_Fetch_Site=site)[0] == status


def test_a_link_that_is_clicked_elsewhere_opens_the_page_but_reads_no_data(server: Server) -> None:
    clicked = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert get(server, "/", **clicked)[0] == 200
    assert get(server, "/data/index.js", **clicked)[0] == 403
    assert get(server, "/", host="attacker.example", **clicked)[0] == 403


def test_data_is_ascii_and_holds_no_tag(server: Server) -> None:
    for path in ("/data/index.js", "/data/0/step-000001/0.js"):
        body = get(server, path)[1]
        assert body.isascii()
        assert b"<" not in body
        assert b"alert(1)" in body, "it is there, as text"


def test_it_is_bound_to_loopback_and_says_when_the_port_is_taken(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Server(server.site, server.server_address[1])
