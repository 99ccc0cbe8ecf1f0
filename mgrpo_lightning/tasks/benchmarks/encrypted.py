"""Decrypt texts that benchmarks publish XORed with a key (base64), so that crawlers cannot read them; in memory."""

from __future__ import annotations

import base64
import binascii
from itertools import cycle

from mgrpo_lightning.errors import DataError


def decrypted(text: str, key: bytes) -> str:
    """Decrypt a text: base64 of UTF-8 bytes that are XORed with the repeated key.

    Args:
        text: Encrypted text from the file.
        key: Key of at least one byte.

    Raises:
        DataError: The text is not base64, or the key is wrong. The message does not contain the text.
    """
    try:
        assert key, "a key has at least one byte"  # cycle of an empty key would end zip at once, with an empty text
        return bytes(a ^ b for a, b in zip(base64.b64decode(text, validate=True), cycle(key), strict=False)).decode()
    except (binascii.Error, ValueError, AssertionError) as error:
        raise DataError(
            "a row's canary does not decrypt its text.", hint="download the file again: it may have been edited."
        ) from error
