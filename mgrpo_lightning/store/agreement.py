"""Agreement: whether roles that meet in a store have the same settings, and can give each other what they wait for."""

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
"""Key of a record that is about a member, but for its rank, which stands as the query."""
STUCK = 60.0
"""Seconds for which all roles may wait for different things of each other."""
SHOWN = 5
"""Settings that an error names."""


class Agreement:
    """One role's settings, beside those of its peers.

    Args:
        role: Whose they are.
        settings: From ``shared_settings``; None: not known.
        incarnation: Of the role's writer: each life says its settings anew.
    """

    def __init__(self, role: str, settings: Mapping[str, Any] | None, incarnation: int) -> None:
        self._role = role
        self._settings = settings
        self._incarnation = incarnation
        self._compared: set[str] = set()

    def said(self, rank: int) -> list[Record]:
        """The record that tells peers, if there is anything to tell.

        Args:
            rank: Of this process among those of its role.
        """
        if self._settings is None:
            return []
        text = json.dumps({"incarnation": self._incarnation, "settings": self._settings}, sort_keys=True)
        return [Record("members", "train", _place(rank), self._role, event="settings", text=text)]

    def is_new(self, record: Record, rank: int) -> bool:
        """Whether a record has settings that are still to be compared.

        Args:
            record: Of a peer.
            rank: Of this process.
        """
        return self._settings is not None and record.key == _place(rank) and record.hash not in self._compared

    def compare(self, record: Record, *, latest: int, lives: bool) -> None:
        """Compare settings, if they are those of the peer's present life.

        Args:
            record: With the peer's.
            latest: Number of the peer's last incarnation.
            lives: Whether the peer has shown a sign of life since this process began.

        Raises:
            ConfigurationError: They differ.
            DataError: They cannot be read.
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
    """Whether living roles wait for different things of each other, none of which can come.

    Args:
        role: Who looks.
    """

    def __init__(self, role: str) -> None:
        self._role = role
        self._waits: object = None
        self._since = 0.0

    def look(self, what: str, peers: Mapping[str, object]) -> None:
        """Look, while this role waits.

        Args:
            what: It waits for.
            peers: What each peer waits for; None: it computes, or may be dead, of which others take care.

        Raises:
            ConfigurationError: Everybody has waited for too long.
        """
        stuck = bool(peers) and None not in peers.values() and what not in peers.values()
        waits = (what, dict(peers)) if stuck else None
        if waits != self._waits:
            self._waits, self._since = waits, time.monotonic()
        elif stuck and time.monotonic() - self._since > STUCK:
            others = ", ".join(f"{name!r} for {waited}" for name, waited in peers.items())
            raise ConfigurationError(
                f"role {self._role!r} waits for {what}, and {others}: none of it will come.",
                hint="go on with all roles from checkpoints of one step, and with the same settings.",
            )


def _place(rank: int) -> Key:
    return NOWHERE._replace(query=rank, rollout=0)
