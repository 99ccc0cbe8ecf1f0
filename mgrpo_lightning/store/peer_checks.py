"""Refuse peers of a store with other settings (Agreement); detect that all roles wait for each other (Deadlock)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.store.record import Record
from mgrpo_lightning.store.shared_settings import differences

NOWHERE = Key(-1, -1, -1, -1)
"""Key of a record about a member (a role's process). The query field then holds the rank."""
STUCK = 60.0
"""Timeout of a deadlock, in seconds: so long all roles may wait for different things of each other."""
SHOWN = 5
"""Maximum number of differing settings in an error."""


class Agreement:
    """Publishes one role's settings and compares them with those of its peers.

    Args:
        role: Name of this role.
        settings: From ``shared_settings``; None: nothing is published or compared.
        incarnation: Number of the role's writer: a restarted process publishes its settings again.
    """

    def __init__(self, role: str, settings: Mapping[str, Any] | None, incarnation: int) -> None:
        self._role = role
        self._settings = settings
        self._incarnation = incarnation
        self._compared: set[str] = set()

    def said(self, rank: int) -> list[Record]:
        """Return the record that publishes the settings; empty if there are none.

        Args:
            rank: Rank of this process within its role.
        """
        if self._settings is None:
            return []
        text = json.dumps({"incarnation": self._incarnation, "settings": self._settings}, sort_keys=True)
        return [Record("members", "train", _place(rank), self._role, event="settings", text=text)]

    def is_new(self, record: Record, rank: int) -> bool:
        """Whether a record holds settings that were not compared yet.

        Args:
            rank: Rank of this process within its role.
        """
        return self._settings is not None and record.key == _place(rank) and record.hash not in self._compared

    def compare(self, record: Record, *, latest: int, lives: bool) -> None:
        """Compare this role's settings with a peer's, if the record is from the peer's current incarnation.

        Args:
            record: The peer's record with its settings.
            latest: Number of the peer's latest incarnation.
            lives: Whether the peer showed a heartbeat since this process started.

        Raises:
            ConfigurationError: The settings differ.
            DataError: The record cannot be read.
        """
        assert self._settings is not None
        try:
            said = json.loads(record.text or "")
            incarnation, settings = int(said["incarnation"]), dict(said["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"the settings of role {record.role!r} in the store cannot be read: {error}.",
                hint="run all roles with the same version of the package.",
            ) from error
        # Settings of a dead or older process do not matter: a user may be restarting all roles with new settings.
        if incarnation != latest or not lives:
            return
        self._compared.add(record.hash)
        if found := differences(self._settings, settings):
            shown = "; ".join(
                f"{key} is {json.dumps(ours)} for {self._role!r} and {json.dumps(theirs)} for {record.role!r}"
                for key, ours, theirs in found[:SHOWN]
            )
            more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise ConfigurationError(
                f"roles of one run have different settings: {shown}{more}.",
                hint="start all roles with the same files and options.",
            )


class Deadlock:
    """Detects that all living roles wait for different things of each other.

    Args:
        role: Name of this role.
    """

    def __init__(self, role: str) -> None:
        self._role = role
        self._waits: object = None
        self._since = 0.0

    def look(self, what: str, peers: Mapping[str, object]) -> None:
        """Check once; call it repeatedly while this role waits.

        Args:
            what: What this role waits for.
            peers: What each peer waits for. None: it computes, or may be dead (see ``Exchange.check``).

        Raises:
            ConfigurationError: All roles have waited for longer than ``STUCK``.
        """
        # Roles that wait for the same round are not stuck: its last record is only not visible yet.
        stuck = bool(peers) and None not in peers.values() and what not in peers.values()
        waits = (what, dict(peers)) if stuck else None
        if waits != self._waits:
            self._waits, self._since = waits, time.monotonic()
        elif stuck and time.monotonic() - self._since > STUCK:
            others = ", ".join(f"{name!r} for {waited}" for name, waited in peers.items())
            raise ConfigurationError(
                f"the roles wait for each other: {self._role!r} for {what}, {others}.",
                hint="resume all roles from checkpoints of one step, with the same settings.",
            )


def _place(rank: int) -> Key:
    return NOWHERE._replace(query=rank, rollout=0)
