"""Attachments: files as text in the encodings that they come in, a part at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.tasks.benchmarks.attachments import attachment_tool
from mgrpo_lightning.tools.parts import PART

TEXT = "naïve 10 €\r\n"


def read(path: Path, part: int | None = None) -> str:
    arguments = {} if part is None else {"part": part}
    return asyncio.run(attachment_tool({path.name: path})(name=path.name, **arguments))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_text_is_read_in_whatever_encoding_it_comes(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.TXT"
    path.write_bytes(TEXT.encode(encoding))
    assert read(path) == TEXT


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xlsx", b"PK\x03\x04\xe9"),  # would be a text in Windows-1252
        ("a.csv", b"\xff\xfe\x00"),  # no UTF-16: half a character is missing
        ("a.txt", b"\x90"),
        ("a.bin", b"\x00\x01\x02"),  # UTF-8, byte for byte
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ToolError, match=f"{name} is not a text file"):
        read(path)


def test_the_parts_of_a_long_text_are_all_of_it(tmp_path: Path) -> None:
    text = "ab€" * 400_000 + "end"  # 2 MB, and no power of two bytes is the end of a character
    path = tmp_path / "long.txt"
    path.write_bytes(text.encode())
    count = -(-len(text) // PART)
    assert read(path) == read(path, 1)
    parts = [read(path, number) for number in (1, 2, count)]
    heads = [f"part {number} of {count}\n" for number in (1, 2, count)]
    assert [part.startswith(head) for part, head in zip(parts, heads, strict=True)] == [True] * 3
    shown = [part.removeprefix(head) for part, head in zip(parts, heads, strict=True)]
    assert shown == [text[:PART], text[PART : 2 * PART], text[(count - 1) * PART :]]
    assert shown[-1].endswith("end")


@pytest.mark.parametrize("part", [0, -1, 2])
def test_a_part_that_is_not_there_is_refused(tmp_path: Path, part: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x" * PART)
    with pytest.raises(ToolError, match=rf"no part {part}\..*1 to 1"):
        read(path, part)


def test_an_empty_file_is_an_empty_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert read(tmp_path / "a.txt") == ""
