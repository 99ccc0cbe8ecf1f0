"""Texts that benchmarks publish XORed with a key, so that no crawler reads them; they are opened in memory only."""

from __future__ import annotations

import base64
import binascii
from itertools import cycle

from mgrpo_lightning.errors import DataError


def unsealed(text: str, key: bytes) -> str:
    """The plain text of base64 of UTF-8 bytes XORed with a key that repeats.

    Args:
        text: As it stands in the file.
        key: At least one byte.

    Raises:
        DataError: It is no base64, or the key is not its key; the text itself is not named.
    """
    try:
        assert key, "a key has at least one byte"
        return bytes(a ^ b for a, b in zip(base64.b64decode(text, validate=True), cycle(key), strict=False)).decode()
    except (binascii.Error, ValueError, AssertionError) as error:
        raise DataError(
            "a sealed text does not open with its row's canary.", hint="get the file again; it may have been edited."
        ) from error
