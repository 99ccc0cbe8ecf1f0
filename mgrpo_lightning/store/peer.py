"""Peer: how long another role has shown no sign of life, and what a terminal is told of that."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from lightning.pytorch.utilities import rank_zero_info

from mgrpo_lightning.store.layout import BEAT

QUIET = 20.0
"""Seconds without a sign of life after which a terminal is told who is waited for."""


class Peer:
    """A role that another process plays, by this process's clock.

    Args:
        name: The role's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._sign: object = None
        self._seen = self._looked = time.monotonic()
        self._gone = False

    def silence(self, sign: Callable[[], object]) -> float:
        """Seconds without a new sign of life.

        Args:
            sign: Finds the latest one; it is asked once a beat at most. Where the filesystem cannot say, there is none.
        """
        now = time.monotonic()
        if now - self._looked >= BEAT:
            self._looked = now
            with suppress(OSError):
                if (found := sign()) != self._sign:
                    self._sign, self._seen = found, now
        return now - self._seen

    def tell(self, gone: str | None, what: str) -> None:
        """Tell the terminal once that the role is gone, and once that it is back.

        Args:
            gone: In words; None: it is there.
            what: Is waited for.
        """
        if gone is not None and not self._gone:
            rank_zero_info(f"role {self._name!r} {gone}. Waiting for {what}: start or resume it.")
        if gone is None and self._gone:
            rank_zero_info(f"role {self._name!r} is back.")
        self._gone = gone is not None
