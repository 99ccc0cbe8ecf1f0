"""Pages that are huge, slow, packed or of another kind; politeness, the cache, and what is is blocked."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.tools.web.fetch import FetchConfig, Fetcher, Page
from tests.tools.web.site import Answer, Crowd, Site, dripping, moved, said

LIMIT = 100_000
BOMB = gzip.compress(bytes(200 * LIMIT))


def get(site: Site, path: str = "/", **settings: object) -> Page:
    config = FetchConfig(**{"allowed": (site.host,), "max_bytes": LIMIT, "timeout": 5.0, **settings})  # type: ignore[arg-type]
    return asyncio.run(Fetcher(config).get(f"http://{site.host}{path}"))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (said(bytes(LIMIT + 1)), "larger than 100,000 bytes"),
        (dripping(bytes(10_000), 0.0), "larger than 100,000 bytes"),
        (said(BOMB, Content_Encoding="gzip"), "larger than 100,000 bytes"),
        (said(b"no gzip", Content_Encoding="gzip"), "cannot be decompressed"),
        (said(b"x", Content_Encoding="br"), "compressed as 'br'"),
        (said(b"%PDF", "application/pdf"), "is 'application/pdf', not a page of text"),
        (said(b"\x7fELF", "application/octet-stream"), "not a page of text"),
        (said(b"x", ""), "of no kind"),
        (said(b"x", status=404), "status 404"),
        (said(b"x", status=503), "status 503"),
        (moved("/"), "redirects more than 5 times"),
        (lambda handler: handler.connection.close(), "cannot be read"),
    ],
)
def test_a_page_that_cannot_be_shown_is_one_error(site: Site, answer: Answer, problem: str) -> None:
    site.pages["/"] = answer
    with pytest.raises(ToolError, match=problem):
        get(site)


def test_a_body_that_drips_is_cut_off(site: Site) -> None:
    site.pages["/"] = dripping(b".", 0.05)
    with pytest.raises(ToolError, match=r"longer than 0\.4 s"):
        get(site, timeout=0.4)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (said("Ångström".encode()), "Ångström"),
        (said("Ångström".encode("latin-1"), "text/html; charset=latin-1"), "Ångström"),
        (said(b"\xff ok", "text/plain; charset=no-such"), "\ufffd ok"),
        (said(gzip.compress(b"packed"), Content_Encoding="gzip"), "packed"),
        (said(b'{"a": 1}', "application/json"), '{"a": 1}'),
        (said('<meta charset="gbk"><p>多瑙河</p>'.encode("gbk"), "text/html"), '<meta charset="gbk"><p>多瑙河</p>'),
        (said('<meta charset="gbk">多瑙河'.encode()), '<meta charset="gbk">多瑙河'),
        (said("<meta charset=gbk>é".encode(), "text/plain"), "<meta charset=gbk>é"),
    ],
)
def test_texts_are_decoded(site: Site, answer: Answer, text: str) -> None:
    site.pages["/"] = answer
    assert get(site).text == text


def test_a_redirect_within_the_site_is_followed(site: Site) -> None:
    site.pages |= {"/": moved("/there"), "/there": said(b"hello")}
    page = get(site)
    assert (page.url, page.kind, page.text) == (f"http://{site.host}/there", "text/html", "hello")


def test_the_body_of_a_redirect_is_not_read(site: Site) -> None:
    site.pages |= {"/": moved("/there", BOMB, Content_Encoding="gzip"), "/there": said(b"hello")}
    tracemalloc.start()
    try:
        assert get(site).text == "hello"
        assert tracemalloc.get_traced_memory()[1] < 100 * LIMIT
    finally:
        tracemalloc.stop()


def test_a_cookie_is_kept_on_the_way_to_a_page(site: Site) -> None:
    cookies: list[str | None] = []

    def there(handler: BaseHTTPRequestHandler) -> None:
        cookies.append(handler.headers["Cookie"])
        said(b"hello")(handler)

    site.pages |= {"/": moved("/there", Set_Cookie="seen=1"), "/there": there}
    fetcher = Fetcher(FetchConfig(allowed=(site.host,)))
    for path in ("/", "/there"):
        asyncio.run(fetcher.get(f"http://{site.host}{path}"))
    assert cookies == ["seen=1", None]


@pytest.mark.parametrize(("count", "read"), [(5, True), (6, False)])
def test_redirects_are_counted(site: Site, count: int, read: bool) -> None:
    site.pages |= {f"/{number}": moved(f"/{number - 1}") for number in range(1, 7)} | {"/0": said(b"hello")}
    if read:
        assert get(site, f"/{count}").text == "hello"
    else:
        with pytest.raises(ToolError, match=f"/{count} redirects more than 5 times"):
            get(site, f"/{count}")
    assert len(site.asked) == 6


def test_a_page_is_remembered_and_an_error_is_not(site: Site, tmp_path: Path) -> None:
    site.pages["/"] = said(b"x", status=500)
    with pytest.raises(ToolError):
        get(site, cache=str(tmp_path / "pages"))
    site.pages["/"] = said(b"first")
    first = get(site, cache=str(tmp_path / "pages"))
    site.pages["/"] = said(b"second")
    assert get(site, cache=str(tmp_path / "pages")) == first
    (file,) = (tmp_path / "pages").iterdir()
    file.write_text("cut o")
    assert get(site, cache=str(tmp_path / "pages")).text == "second"


@pytest.mark.parametrize("path", ["/gaia-answers", "/gaia%2Danswers", "/g%2561ia%252D", "/innocent", "/elsewhere"])
def test_what_matches_a_pattern_is_not_read(site: Site, path: str, tmp_path: Path) -> None:
    site.pages |= {
        "/gaia-answers": said(b"x"),
        "/innocent": said(b"the CANARY string"),
        "/elsewhere": moved("/gaia-answers"),
    }
    for _ in range(2):
        with pytest.raises(ToolError, match="is blocked"):
            get(site, path, blocked=("gaia-", "canary"), cache=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_page_of_quoted_quotes_is_read_like_any_other(site: Site) -> None:
    site.pages["/"] = said(b"%" + b"25" * 300_000)
    assert len(get(site, blocked=("gaia",), max_bytes=10**6).text) == 600_001


def test_a_pattern_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"fetch.blocked has '\('.*HINT: escape it"):
        Fetcher(FetchConfig(blocked=("(",)))


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(site: Site, tmp_path: Path) -> None:
    site.pages["/"] = said(b"x")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"the cache .*file/pages cannot be written: Not a directory.*HINT"):
        get(site, cache=str(tmp_path / "file" / "pages"))


def test_what_is_remembered_is_held_against_the_patterns_of_now(site: Site, tmp_path: Path) -> None:
    site.pages["/"] = said(b"the CANARY string")
    get(site, cache=str(tmp_path))
    with pytest.raises(ToolError, match="is blocked"):
        get(site, cache=str(tmp_path), blocked=("canary",))


def test_a_page_that_many_open_at_once_is_fetched_once_a_place(site: Site, tmp_path: Path) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.05)
        said(b"ok")(handler)

    site.pages["/"] = slow
    fetcher = Fetcher(FetchConfig(allowed=(site.host,), per_host=2, cache=str(tmp_path)))

    async def ask() -> list[Page]:
        return await asyncio.gather(*(fetcher.get(f"http://{site.host}/") for _ in range(16)))

    assert {page.text for page in asyncio.run(ask())} == {"ok"}
    assert len(site.asked) <= 2


def test_who_waits_too_long_for_a_busy_host_is_told(site: Site) -> None:
    site.pages |= {"/hangs": dripping(b".", 0.05), "/fine": said(b"ok")}
    fetcher = Fetcher(FetchConfig(allowed=(site.host,), per_host=1, timeout=0.5, wait=0.1))

    async def ask() -> list[Page | BaseException]:
        hanging = asyncio.ensure_future(fetcher.get(f"http://{site.host}/hangs"))
        await asyncio.sleep(0.05)
        waiting = [fetcher.get(f"http://{site.host}/fine?{n}") for n in range(20)]
        found = await asyncio.gather(*waiting, hanging, return_exceptions=True)
        return [*found, await fetcher.get(f"http://{site.host}/fine")]

    *waited, hung, after = asyncio.run(ask())
    assert all("127.0.0.1 was busy with other requests for 0.1 s" in str(error) for error in waited)
    assert "took longer than 0.5 s" in str(hung)
    assert isinstance(after, Page), "its place is free again"
    assert site.asked == ["/hangs", "/fine"]


def test_no_host_is_asked_more_often_at_once_than_is_polite(site: Site) -> None:
    crowd = site.pages["/"] = Crowd(said(b"ok"))
    fetcher = Fetcher(FetchConfig(allowed=(site.host,), per_host=2))

    async def ask() -> list[Page]:
        return await asyncio.gather(*(fetcher.get(f"http://{site.host}/?{n}") for n in range(8)))

    assert len(asyncio.run(ask())) == 8
    assert crowd.most == 2
