"""Pages that say in what they are written, rightly, wrongly or not at all."""

from __future__ import annotations

import codecs

import pytest

from mgrpo_lightning.tools.web.decoding import HEAD, decoded

TEXT = "多瑙河"
HTTP_EQUIV = b"<html><head><META HTTP-EQUIV='Content-Type' CONTENT='text/html; charset=gb2312'>"


@pytest.mark.parametrize(
    ("head", "encoding", "server"),
    [
        (b"", "utf-8", None),
        (b'<meta charset="gbk">', "gbk", None),
        (b"<meta charset = GBK >", "gbk", None),
        (b"<meta name='x'>\n<meta charset='gbk'/>", "gbk", None),
        (HTTP_EQUIV, "gbk", None),
        (b'<?xml version="1.0" encoding="Big5"?>', "big5", None),
        (b'<meta charset="Shift_JIS">', "shift_jis", None),
        (b'<meta charset="gbk">', "utf-8", "utf-8"),
        (b'<meta charset="utf-8">', "gbk", "GB2312"),
        (b'<meta charset="no-such">', "utf-8", None),
        (b'<meta charset="utf-16">', "utf-8", None),
        (b'<meta charset="punycode">', "utf-8", None),
        (b'<meta charset="gbk">', "gbk", "no-such"),
        (b'<meta charset="gbk">', "gbk", "punycode"),
        (b"<!-- charset=gbk --><title>charset=gbk</title>", "utf-8", None),
        (b" " * HEAD + b'<meta charset="gbk">', "utf-8", None),
    ],
)
def test_a_page_is_read_in_its_server_s_or_else_its_own_encoding(
    head: bytes, encoding: str, server: str | None
) -> None:
    assert decoded(head + TEXT.encode(encoding), server, html=True) == head.decode() + TEXT


def test_a_byte_order_mark_goes_before_all_else() -> None:
    for mark, encoding in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        assert decoded(mark + TEXT.encode(encoding), "gbk", html=True) == TEXT


def test_narrow_encodings_are_read_as_browsers_do() -> None:
    assert decoded("“镕”".encode("gbk"), "gb2312", html=True) == "“镕”"
    assert decoded("“quoted”".encode("cp1252"), "iso-8859-1", html=True) == "“quoted”"


@pytest.mark.parametrize("name", ["idna", "hex", "undefined", "a\0b", "\ud800", "", "x" * 10_000])
def test_no_name_of_an_encoding_does_harm(name: str) -> None:
    assert decoded(b"\xff ok", name, html=False) == "\ufffd ok"


def test_only_pages_of_a_markup_declare_an_encoding() -> None:
    assert decoded(b'<meta charset="gbk">' + TEXT.encode(), None, html=False).endswith(TEXT)
