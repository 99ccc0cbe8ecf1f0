"""Text from outside: as every tokenizer can encode it and every file hold it, and as a reader sees it."""

from __future__ import annotations

import re
import unicodedata

CUT_MARK = "[cut]"
"""Stands below a text that was cut."""
_INVISIBLE = re.compile(
    # Controls that are no white space, then Unicode's Default_Ignorable_Code_Point, then the blank Braille pattern.
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    r"\u2800]"
)


def encodable(text: str) -> str:
    """The text without lone surrogates (of a broken page), which no tokenizer can encode and no file hold.

    Args:
        text: Any.
    """
    return text.encode("utf-8", "replace").decode()


def start_of(text: str, characters: int) -> str:
    """The text if it is no longer, else its start with the mark below.

    Args:
        text: Any.
        characters: Most that are kept.
    """
    return text if len(text) <= characters else f"{text[:characters]}\n{CUT_MARK}"


def visible(text: str) -> str:
    """The text as a reader sees it: without invisible characters, in Unicode's composed form (NFC).

    Args:
        text: Any; white space stays.
    """
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
