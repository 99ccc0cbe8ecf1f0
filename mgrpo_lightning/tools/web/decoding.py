"""The text of a page's bytes, in the encoding that the page or its server declares."""

from __future__ import annotations

import codecs
import re

HEAD = 2048
"""Bytes of a page in which it may declare its encoding; browsers look at 1024."""
_DECLARED = re.compile(
    rb"""<(?:meta\s[^>]*?\bcharset|\?xml\s[^>]*?\bencoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_OF_TEXT = re.compile(
    r"utf-8|utf-16(-[lb]e)?|ascii|gb\w+|big5\w*|euc_\w+|iso[\w-]+|shift_jis\w*|cp\d+|koi8-\w+|mac-\w+|tis-620"
)
"""Python's names of the encodings of pages; some of its others, such as punycode, take minutes for a megabyte."""
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "cp1252"}
"""What browsers read in place of a narrow encoding, since pages that declare it hold more."""


def decoded(body: bytes, declared: str | None, *, html: bool) -> str:
    """The text of a page; what cannot be read in it becomes U+FFFD.

    The encoding is that of a byte order mark, else the server's, else the page's own, else UTF-8.

    Args:
        body: The page, unpacked.
        declared: Encoding in the header of the answer, if one is there.
        html: Whether the page may declare one itself.
    """
    for mark, encoding in _MARKS.items():
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, errors="replace")
    own = _DECLARED.search(body[:HEAD]) if html else None
    encoding = _known(declared) or (_readable(own[1].decode("ascii", "replace")) if own else None) or "utf-8"
    return body.decode(encoding, errors="replace")


def _readable(name: str) -> str | None:
    """An encoding that a page declares in bytes that were read as ASCII; so it is not UTF-16, whatever they say."""
    encoding = _known(name)
    return "utf-8" if encoding is not None and encoding.startswith("utf-16") else encoding


def _known(name: str | None) -> str | None:
    """The encoding to read by, None for a name that is none."""
    try:
        found = codecs.lookup(name or "").name
    except (LookupError, ValueError):
        return None
    return _WIDER.get(found, found) if _OF_TEXT.fullmatch(found) else None
