"""The cache of answers on disk: files of earlier releases are read, damaged ones are not, processes share a folder."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.services.cache import JsonCache, entry_name
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tools.web.engines import Hit
from mgrpo_lightning.tools.web.fetch import FetchConfig, Fetcher, Page
from mgrpo_lightning.tools.web.web_search import WebSearch

NOWHERE = "http://127.0.0.1:9"
"""An address where no server listens: whoever asks it fails."""
NAME = entry_name("a key")


def test_verdicts_of_earlier_releases_are_read(tmp_path: Path) -> None:
    files = {"a8c41971ae3599937f1a36f976c5a9f8": "true", "db2b436e2b9d827d6907ca2b7bf89f8d": "0.5"}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(content)
    plain = Judge(f"{NOWHERE}/v1", "m", cache=str(tmp_path))
    found = [
        asyncio.run(plain.expert("find", "It is ö.", ["a", "b"])),
        asyncio.run(plain.correct("Which river?", ["Danube"], "the Rhöne")),
    ]
    (tmp_path / "be1df6b92de34efb0c2fdbbfbe673684.json").write_text("true")
    (tmp_path / "38af2b5c5f9360cc25632e9f5a292766.json").write_text("0.5")
    with_parameters = Judge(f"{NOWHERE}/v1", "m", cache=str(tmp_path), parameters={"max_completion_tokens": 9})
    found += [
        asyncio.run(with_parameters.expert("find", "It is ö.", ["a", "b"])),
        asyncio.run(with_parameters.correct("Which river?", ["Danube"], "the Rhöne")),
    ]
    assert found == [0.5, True, 0.5, True]


def test_searches_and_pages_of_earlier_releases_are_read(tmp_path: Path) -> None:
    hits = '[{"url": "https://a.example", "title": "Ä", "text": "t"}]'
    (tmp_path / "411b75449f7d6d17a460b5c115f0035d.json").write_text(hits, "utf-8")
    search = WebSearch("searxng", "http://h/search", k=5, attempts=1, cache=str(tmp_path))
    assert asyncio.run(search.find("who ö")) == [Hit("https://a.example", "Ä", "t")]
    page = '{"url": "http://example.org/x", "kind": "text/html", "text": "Ångström"}'
    (tmp_path / "0ca7838cda0bbdb5b021ad0e97a1e00d.json").write_text(page, "utf-8")
    fetcher = Fetcher(FetchConfig(cache=str(tmp_path)))
    assert asyncio.run(fetcher.get("http://8.8.8.8/a page?q=ö")) == Page(
        "http://example.org/x", "text/html", "Ångström"
    )


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe\x00", b"5", b"[" * 10**5, b'["no dict"]'])
def test_a_damaged_entry_counts_as_none_and_can_be_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{NAME}.json").write_bytes(content)
    cache = JsonCache(tmp_path)
    assert cache.get(NAME, lambda found: found["a"]) is None
    cache.put(NAME, {"a": 1})
    assert cache.get(NAME, lambda found: found["a"]) == 1


def test_any_text_comes_back_as_it_was(tmp_path: Path) -> None:
    text = "Å 多 \ud800 \x00"
    JsonCache(tmp_path / "new").put(NAME, [text])
    assert JsonCache(tmp_path / "new").get(NAME, lambda found: found[0]) == text
    assert "Å".encode() in (tmp_path / "new" / f"{NAME}.json").read_bytes()


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    JsonCache(None).put(NAME, 1)
    assert JsonCache(None).get(NAME, int) is None
    assert not list(tmp_path.iterdir())


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = JsonCache("kept")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cache.put(NAME, 1)
    assert (tmp_path / "kept" / f"{NAME}.json").read_text() == "1"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"the cache .*file cannot be written: .*HINT: give another folder"):
        JsonCache(tmp_path / "file").put(NAME, 1)


def _write(folder: Path, value: int, times: int) -> None:
    cache = JsonCache(folder)
    for _ in range(times):
        cache.put(NAME, [value] * 20_000)
        found = cache.get(NAME, list)
        if found is None or len(found) != 20_000 or len(set(found)) != 1:
            os._exit(1)
    os._exit(0)


def test_processes_that_write_one_entry_at_once_leave_it_whole(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_write, args=(tmp_path, value, 10)) for value in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    (left,) = tmp_path.iterdir()
    assert len(set(json.loads(left.read_text()))) == 1
