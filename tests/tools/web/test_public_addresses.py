"""What a policy may write, and where a page may send it: nothing of it reaches a private address."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx2
import pytest

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.tools.web.fetch import FetchConfig, Fetcher
from mgrpo_lightning.tools.web.public_addresses import PublicTransport, is_public, public_address
from tests.tools.web.site import Site, moved, said

PRIVATE = {
    "loopback": "http://127.0.0.1/",
    "another loopback": "http://127.8.9.10/",
    "localhost": "http://localhost/",
    "localhost with a dot": "http://localhost./",
    "any address": "http://0.0.0.0/",
    "decimal": "http://2130706433/",
    "hexadecimal": "http://0x7f000001/",
    "octal": "http://0177.0.0.1/",
    "short": "http://127.1/",
    "full width": "http://\uff11\uff12\uff17.0.0.1/",
    "IPv6 loopback": "http://[::1]/",
    "IPv6 any": "http://[::]/",
    "IPv4 in IPv6": "http://[::ffff:127.0.0.1]/",
    "IPv4 in IPv6, hexadecimal": "http://[::ffff:7f00:1]/",
    "translated": "http://[64:ff9b::7f00:1]/",
    "tunnelled": "http://[2002:7f00:1::]/",
    "cloud metadata": "http://169.254.169.254/latest/meta-data/",
    "IPv6 link": "http://[fe80::1]/",
    "IPv6 site": "http://[fd00:ec2::254]/",
    "class A": "http://10.0.0.1/",
    "class B": "http://172.16.0.1/",
    "class C": "http://192.168.1.1/",
    "carrier": "http://100.64.0.1/",
    "benchmark network": "http://198.18.0.1/",
    "multicast": "http://224.0.0.1/",
    "broadcast": "http://255.255.255.255/",
    "IPv6 multicast": "http://[ff02::1]/",
    "Azure metadata": "http://168.63.129.16/machine",
    "Azure metadata in IPv6": "http://[::ffff:168.63.129.16]/",
    "Azure metadata, translated": "http://[64:ff9b::a83f:8110]/",
    "Azure metadata, tunnelled": "http://[2002:a83f:8110::]/",
    "Oracle metadata": "http://192.0.0.192/opc/v2/",
    "protocol assignments": "http://192.0.0.9/",
    "6to4 relay": "http://192.88.99.1/",
    "old IPv6 site": "http://[fec0::1]/",
    "IPv6 documentation": "http://[3fff::1]/",
    "IPv6 protocol assignments": "http://[2001:1::1]/",
    "IPv6 segment": "http://[5f00::1]/",
    "translated, local use": "http://[64:ff9b:1::808:808]/",
}
MALFORMED = {
    "file": "file:///etc/passwd",
    "ftp": "ftp://example.org/",
    "gopher": "gopher://example.org:25/_MAIL",
    "data": "data:text/html,hi",
    "script": "javascript:alert(1)",
    "no scheme": "example.org",
    "no host": "http:///etc/passwd",
    "user": "http://example.org@127.0.0.1/",
    "user and password": "http://a:b@example.org/",
    "mail": "http://example.org:25/",
    "database": "http://example.org:5432/",
    "port that is none": "http://example.org:99999999/",
    "line break": "http://example.org/\r\nHost: other",
    "nothing": "",
    "no address": "http://[::1/",
}


@pytest.mark.parametrize("name", PRIVATE)
def test_private_addresses_are_refused_in_every_notation(name: str) -> None:
    with pytest.raises(ToolError, match=r"not on the public web|cannot be found|is not a URL"):
        asyncio.run(Fetcher().get(PRIVATE[name]))


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_address_of_a_page_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unasked(*args: object) -> httpx2.Response:
        raise AssertionError("a request was sent")

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", unasked)
    with pytest.raises(ToolError):
        asyncio.run(Fetcher().get(MALFORMED[name]))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("2001:0:7f00:1::1", False),
        ("240.0.0.1", False),
        ("192.0.2.1", False),
        ("168.63.129.15", True),
        ("192.0.1.1", True),
        ("192.88.98.1", True),
        ("2001:200::1", True),
        ("168.63.129.17", True),
        ("2002:808:808::1", False),
        ("2400:cb00::1", True),
        ("2620:fe::fe", True),
        ("2a00:1450:4001::1", True),
    ],
)
def test_an_address_counts_as_the_one_that_it_reaches(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) == public


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:1/", "http://localhost/", "file:///etc/passwd", "http://[::ffff:10.0.0.1]/", "//10.0.0.1/"],
)
def test_a_redirect_goes_nowhere_that_a_request_may_not(site: Site, target: str) -> None:
    site.pages["/"] = moved(target)
    with pytest.raises(ToolError):
        asyncio.run(Fetcher(FetchConfig(allowed=(site.host,))).get(f"http://{site.host}/"))
    assert site.asked == ["/"]


def _answers(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """A name server that says something else each time."""
    left = list(answers)

    async def getaddrinfo(self: object, host: str, port: int, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in left.pop(0)]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, ["8.8.8.8", "127.0.0.1"])
    with pytest.raises(ToolError, match="not on the public web"):
        asyncio.run(public_address("both.example", 80))


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    sent: list[httpx2.Request] = []

    async def send(self: object, request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, text="hello")

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", send)

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=PublicTransport(), trust_env=False) as client:
            return await client.get("https://rebinding.example/page")

    response = asyncio.run(ask())
    assert sent[0].url == "https://8.8.8.8/page"
    assert sent[0].headers["Host"] == "rebinding.example"
    assert sent[0].extensions["sni_hostname"] == "rebinding.example"
    assert response.url == "https://rebinding.example/page", "relative redirects are the page's own"


@pytest.fixture
def keeping() -> Iterator[Site]:
    """A site that keeps connections open."""
    found = Site("HTTP/1.1")
    found.pages["/"] = said(b"hello")
    yield found
    found.close()


def _fetched(site: Site, *hosts: str) -> None:
    """Read a page from each of the hosts, one after another; all of them may be at private addresses."""
    port = site.host.partition(":")[2]
    fetcher = Fetcher(FetchConfig(allowed=tuple(f"{host}:{port}" for host in hosts)))

    async def fetch() -> None:
        for host in hosts:
            await fetcher.get(f"http://{host}:{port}/")

    asyncio.run(fetch())


def test_hosts_at_one_address_share_no_connection(keeping: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ["a.example", "b.example", "a.example", "b.example", "a.example"]
    _answers(monkeypatch, *[["127.0.0.1"]] * len(hosts))
    ports: dict[str, list[int]] = {"a.example": [], "b.example": []}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        ports[handler.headers["Host"].partition(":")[0]].append(handler.client_address[1])
        said(b"hello")(handler)

    keeping.pages["/"] = answer
    _fetched(keeping, *hosts)
    first, second = ports.values()
    assert (len(first), len(second)) == (3, 2)
    assert len(set(first)) == 1
    assert not set(first) & set(second)
    assert keeping.all_closed()


def test_a_host_that_moves_to_a_private_address_is_refused_over_a_kept_connection_too(
    keeping: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answers(monkeypatch, ["127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"])
    monkeypatch.setattr(
        "mgrpo_lightning.tools.web.public_addresses.is_public", lambda address: str(address) == "127.0.0.1"
    )
    monkeypatch.setattr("mgrpo_lightning.tools.web.public_addresses.PORTS", (int(keeping.host.partition(":")[2]),))
    fetcher = Fetcher()

    async def fetch() -> None:
        url = keeping.host.replace("127.0.0.1", "http://rebinding.example")
        await fetcher.get(url)
        await fetcher.get(url)
        with pytest.raises(ToolError, match=r"'rebinding\.example' is not on the public web"):
            await fetcher.get(url)

    asyncio.run(fetch())
    assert len(keeping.asked) == 2
    assert len(keeping.opened) == 1


def test_a_private_service_is_asked_only_where_it_is_allowed(site: Site) -> None:
    site.pages["/"] = said(b"hello")
    assert asyncio.run(Fetcher(FetchConfig(allowed=(site.host,))).get(f"http://{site.host}/")).text == "hello"
    port = int(site.host.partition(":")[2])
    for allowed in ((), ("127.0.0.1:80",), (f"localhost:{port}",)):
        with pytest.raises(ToolError):
            asyncio.run(Fetcher(FetchConfig(allowed=allowed)).get(f"http://{site.host}/"))


def test_a_proxy_of_the_environment_is_not_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["http://10.0.0.1/"] = said(b"from inside")
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{site.host}")
    with pytest.raises(ToolError, match="not on the public web"):
        asyncio.run(Fetcher().get("http://10.0.0.1/"))
    assert site.asked == []
