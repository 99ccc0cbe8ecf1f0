"""Peer: how long another role has shown no sign of life, and what a terminal is told of that."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from lightning.pytorch.utilities import rank_zero_info

from mgrpo_lightning.errors import RunStopped
from mgrpo_lightning.store.layout import BEAT

QUIET = 20.0
"""Seconds without a sign of life after which a terminal is told who is waited for."""

GONE = {"fail": "failed ({})", "end": "has ended", "interrupt": "was interrupted ({})"}
"""What is told of a peer, by the last event that it said of itself."""


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
        self.beats = 0
        """New signs that were seen; the first may be the last of a life that is over."""
        self.waits_for: object = None
        """What it waited for at its last sign of life; None: it computed, or has shown none for a while."""

    def silence(self, sign: Callable[[], tuple[object, Mapping[str, object]]]) -> float:
        """Seconds without a new sign of life.

        Args:
            sign: Finds the latest one, and what the role is at; it is asked once a beat at most. Where the filesystem
                cannot say, there is none.
        """
        now = time.monotonic()
        if now - self._looked >= BEAT:
            self._looked = now
            with suppress(OSError):
                found, state = sign()
                if found != self._sign:
                    self._sign, self._seen = found, now
                    self.beats += 1
                    self.waits_for = state.get("waits_for")
            if now - self._seen > QUIET:
                self.waits_for = None
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


def ending(error: BaseException | None) -> str:
    """The event with which a role ends. What a signal interrupts has not failed, and may come back.

    Args:
        error: What ends it; None: it is done.
    """
    if error is None:
        return "end"
    if isinstance(error, RunStopped):
        return "stop"
    return "interrupt" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "fail"
