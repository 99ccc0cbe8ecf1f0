"""Peer: seconds since another role's last heartbeat; print that it is gone or back; event with which a role ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from lightning.pytorch.utilities import rank_zero_info

from mgrpo_lightning.errors import RunStopped
from mgrpo_lightning.store.layout import BEAT

QUIET = 20.0
"""Seconds without a heartbeat after which the terminal shows which role is awaited."""

GONE = {"fail": "failed ({})", "end": "has ended", "interrupt": "was interrupted ({})"}
"""Texts about a lost peer, by the last event that it published."""


class Peer:
    """A role that another process plays; times are by this process's clock.

    Args:
        name: Name of the role.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._sign: object = None
        self._seen = self._looked = time.monotonic()
        self._gone = False
        self.beats = 0
        """Number of new heartbeats seen; the first one may be the last one of a dead process."""
        self.waits_for: object = None
        """What the peer waited for at its last heartbeat; None: it computed, or was silent for longer than
        ``QUIET``."""

    def silence(self, sign: Callable[[], tuple[object, Mapping[str, object]]]) -> float:
        """Return the seconds since the last new heartbeat.

        Args:
            sign: Returns the latest heartbeat and the peer's state. It is called at most once per ``BEAT``; an OSError
                counts as no new heartbeat.
        """
        now = time.monotonic()
        # At most one read per heartbeat: more would load the file system and show nothing new.
        if now - self._looked >= BEAT:
            self._looked = now
            with suppress(OSError):
                found, state = sign()
                if found != self._sign:
                    self._sign, self._seen = found, now
                    self.beats += 1
                    self.waits_for = state.get("waits_for")
            # The last state is stale: a dead role must not count as waiting in a deadlock.
            if now - self._seen > QUIET:
                self.waits_for = None
        return now - self._seen

    def tell(self, gone: str | None, what: str) -> None:
        """Print once that the role is gone, and once that it is back.

        Args:
            gone: Reason, in words; None: the role is there.
            what: What this process waits for, in words.
        """
        if gone is not None and not self._gone:
            rank_zero_info(f"role {self._name!r} {gone}. Waiting for {what}: start or resume it.")
        if gone is None and self._gone:
            rank_zero_info(f"role {self._name!r} is back.")
        self._gone = gone is not None


def ending(error: BaseException | None) -> str:
    """Return the event with which a role ends. A role that a signal interrupted has not failed, and may come back.

    Args:
        error: The error that ends it; None: it is done.
    """
    if error is None:
        return "end"
    if isinstance(error, RunStopped):
        return "stop"
    return "interrupt" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "fail"
