"""Text from outside as every tokenizer can encode it and every file hold it."""

from __future__ import annotations


def encodable(text: str) -> str:
    """The text without lone surrogates (of a broken page), which no tokenizer can encode and no file hold.

    Args:
        text: Any.
    """
    return text.encode("utf-8", "replace").decode()
