"""Decode the bytes of a web page to text: byte order mark, HTTP header, or the encoding in its HTML or XML."""

from __future__ import annotations

import codecs
import re

HEAD = 2048
"""Bytes at the start of a page that are searched for an encoding declaration; browsers search 1024."""
_DECLARED = re.compile(
    rb"""<(?:meta\s[^>]*?\bcharset|\?xml\s[^>]*?\bencoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_OF_TEXT = re.compile(
    r"utf-8|utf-16(-[lb]e)?|ascii|gb\w+|big5\w*|euc_\w+|iso[\w-]+|shift_jis\w*|cp\d+|koi8-\w+|mac-\w+|tis-620"
)
"""Python's names of the accepted encodings. Some others, such as punycode, take minutes for a megabyte."""
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "cp1252"}
"""Supersets that browsers use for these encodings, because pages that declare them contain more characters."""


def decoded(body: bytes, declared: str | None, *, html: bool) -> str:
    """Decode a page to text; bytes that are invalid in its encoding become U+FFFD.

    The encoding comes from a byte order mark, else from the server, else from the page itself; the default is UTF-8.

    Args:
        body: The bytes of the page, decompressed.
        declared: Encoding in the response header, or None.
        html: Whether the page is HTML or XML, which may declare an encoding itself.
    """
    # The byte order mark goes first, as in browsers, and is no part of the text.
    for mark, encoding in _MARKS.items():
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, errors="replace")
    # The declaration is ASCII in every accepted encoding but UTF-16, so it can be read before the encoding is known.
    own = _DECLARED.search(body[:HEAD]) if html else None
    encoding = _known(declared) or (_readable(own[1].decode("ascii", "replace")) if own else None) or "utf-8"
    return body.decode(encoding, errors="replace")


def _readable(name: str) -> str | None:
    """The encoding that a page declares itself. Its declaration was found as ASCII, so UTF-16 is wrong: use UTF-8."""
    encoding = _known(name)
    return "utf-8" if encoding is not None and encoding.startswith("utf-16") else encoding


def _known(name: str | None) -> str | None:
    """Python's name of the encoding to decode with; None if the name is unknown or not accepted."""
    try:
        found = codecs.lookup(name or "").name
    except (LookupError, ValueError):
        return None
    return _WIDER.get(found, found) if _OF_TEXT.fullmatch(found) else None
