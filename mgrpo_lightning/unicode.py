"""Clean text from outside: lone surrogates, invisible characters, composed form (NFC); cut a text, marked ``[cut]``."""

from __future__ import annotations

import re
import unicodedata

CUT_MARK = "[cut]"
"""Appended below a text that was cut."""
_INVISIBLE = re.compile(
    # Control characters except white space; Unicode's Default_Ignorable_Code_Point; the blank Braille pattern.
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    r"\u2800]"
)


def encodable(text: str) -> str:
    """Replace lone surrogates, which a broken page may contain; no tokenizer and no UTF-8 file accepts them."""
    return text.encode("utf-8", "replace").decode()


def start_of(text: str, characters: int) -> str:
    """Return the text if it fits, else its first ``characters`` characters followed by ``CUT_MARK``."""
    return text if len(text) <= characters else f"{text[:characters]}\n{CUT_MARK}"


def visible(text: str) -> str:
    """Return the text as a reader sees it: without invisible characters, in Unicode's composed form (NFC).

    White space stays.
    """
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
