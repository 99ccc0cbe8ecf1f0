"""Visiting a page: its main text, a part at a time; and both tools together, as a team file names them."""

from __future__ import annotations

import asyncio
import builtins
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.errors import ConfigurationError, ToolError
from mgrpo_lightning.tasks.jsonl import JsonlTask
from mgrpo_lightning.tools.base import Tool
from mgrpo_lightning.tools.sets import collected
from mgrpo_lightning.tools.web.fetch import FetchConfig, Fetcher, Page
from mgrpo_lightning.tools.web.tools import Retriever, WebTools
from mgrpo_lightning.tools.web.web_visit import main_text, visit_tool
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model
from tests.tools.web.site import Site, said

PARAGRAPH = "The Blue Boat was built by Ann Brand in Delft, where she had learned the trade from her mother. "
HTML = f"""<html><head><title>Boats</title><script>var tracker = 1;</script></head><body>
<nav><a href="/">Home</a><a href="/shop">Shop</a></nav>
<article><h1>The Blue Boat</h1><p>{PARAGRAPH}</p><p>{PARAGRAPH}</p>
<table><tr><td>length</td><td>12 m</td></tr></table></article>
<footer>All rights reserved</footer></body></html>"""


def visit_at(site: Site, part: int = 6000) -> Tool:
    return visit_tool(Fetcher(FetchConfig(allowed=(site.host,))), part=part)


def test_a_page_is_shown_without_what_stands_around_it(site: Site) -> None:
    site.pages["/"] = said(HTML.encode())
    text = asyncio.run(visit_at(site)(url=f"http://{site.host}/"))
    assert "built by Ann Brand" in text
    assert "12 m" in text
    assert not [word for word in ("tracker", "Shop", "rights reserved", "<p>") if word in text]


def test_a_long_page_comes_in_parts(site: Site) -> None:
    site.pages["/"] = said(b"0123456789" * 5, "text/plain")
    visit, url = visit_at(site, part=20), f"http://{site.host}/"
    parts = [asyncio.run(visit(url=url, part=number)) for number in (1, 2, 3)]
    shown = ["0123456789" * 2, "0123456789" * 2, "0123456789"]
    assert parts == [f"part {number} of 3\n{text}" for number, text in enumerate(shown, start=1)]
    for number in (0, 4, -1):
        with pytest.raises(ToolError, match=r"its parts are 1 to 3"):
            asyncio.run(visit(url=url, part=number))


def test_the_text_of_a_page_is_found_once_and_beside_the_play(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/"] = said(b"0123456789" * 5, "text/plain")
    threads: list[int] = []

    def found(page: Page) -> str:
        threads.append(threading.get_ident())
        return main_text(page)

    monkeypatch.setattr("mgrpo_lightning.tools.web.web_visit.main_text", found)
    visit, url = visit_at(site, part=20), f"http://{site.host}/"

    async def read() -> list[str]:
        return [await visit(url=url, part=number) for number in (1, 2, 3)]

    assert len("".join(asyncio.run(read()))) > 50
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    site.pages["/"] = said(b"changed", "text/plain")
    assert asyncio.run(visit(url=url)) == "changed"


@pytest.mark.parametrize("body", [b"", b"<html><body></body></html>", b"   "])
def test_a_page_without_text_is_told(site: Site, body: bytes) -> None:
    site.pages["/"] = said(body)
    with pytest.raises(ToolError, match="has no text"):
        asyncio.run(visit_at(site)(url=f"http://{site.host}/"))


def test_a_missing_package_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "trafilatura":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"mgrpo-lightning\[web\]"):
        WebTools("searxng", "http://localhost:8888/search")


def test_a_task_offers_search_and_visit_of_the_web(site: Site, tmp_path: Path) -> None:
    hits = {"results": [{"url": f"http://{site.host}/boat", "title": "Boats", "content": ""}]}
    site.pages |= {"/search": said(json.dumps(hits).encode()), "/boat": said(HTML.encode())}
    (tmp_path / "q.jsonl").write_text('{"question": "Who?", "answer": "Ann Brand"}\n')
    web = WebTools("searxng", f"http://{site.host}/search", fetch=FetchConfig(allowed=(site.host,)))
    tools = JsonlTask(str(tmp_path / "q.jsonl"), tools=[web]).tools()
    url = asyncio.run(tools["search"](query="boat")).split()[1]
    assert "Ann Brand" in asyncio.run(tools["visit"](url=url))


def convert(amount: float) -> str:
    """Convert an amount to euros."""
    return f"{amount / 2:g}"


def test_a_team_file_names_sets_of_tools_beside_functions(tmp_path: Path) -> None:
    team = yaml.safe_load(write_team_file(tmp_path, make_tiny_model(tmp_path / "model")).read_text())
    (tmp_path / "q.jsonl").write_text('{"question": "Who?", "answer": "me"}\n')
    served = {"class_path": "mgrpo_lightning.tools.web.tools.Retriever", "init_args": {"url": "http://localhost:1/"}}
    team["data"]["task"] = {
        "class_path": "mgrpo_lightning.tasks.JsonlTask",
        "init_args": {"path": str(tmp_path / "q.jsonl"), "tools": [f"{__name__}.convert", served]},
    }
    (tmp_path / "team.yaml").write_text(yaml.safe_dump(team))
    data = make_cli(["--config", str(tmp_path / "team.yaml")], run=False).datamodule
    assert list(data.task.tools()) == ["convert", "search"]


def test_two_tools_of_one_name_are_refused(site: Site) -> None:
    with pytest.raises(ConfigurationError, match="two tools have the name 'search'"):
        collected([Retriever("http://localhost:1/retrieve"), Retriever("http://localhost:2/retrieve")])
