"""Exchange: one role's end of the store: publish records, wait for others' records, send heartbeats, find lost peers.

If roles have several ranks, all have the same number. Rank r of one role plays the same queries as rank r of the
others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from mgrpo_lightning.errors import ConfigurationError, DataError, MgrpoError, RunStopped
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.layout import BEAT, STOP, Alive, incarnation_folder, incarnations, read_alive, writer_name
from mgrpo_lightning.store.ledger import Ledger
from mgrpo_lightning.store.peer import GONE, QUIET, Peer, ending
from mgrpo_lightning.store.peer_checks import NOWHERE, Agreement, Deadlock
from mgrpo_lightning.store.record import Record
from mgrpo_lightning.store.tail import Tail
from mgrpo_lightning.store.writer import StoreWriter

T = TypeVar("T")
PAUSES = (0.002, 0.05)
"""Seconds between two polls: at first, and at most."""
_GO_ON = "remove the file `stop` if it exists, and resume with --ckpt_path=last."


class PeerLost(MgrpoError):
    """Another role of a decoupled run has failed or shows no heartbeat."""


class Exchange:
    """Publish records, wait for records, send heartbeats.

    Args:
        root: Folder of the store; created if missing.
        role: Name of this role.
        rank: Rank of this process within its role.
        num_ranks: Number of ranks of the role.
        first_step: Training step at which this process starts.
        peers: Names of the other roles.
        on_loss: ``error``: raise if a peer ends, fails or shows no heartbeat for ``lost_after`` seconds; ``wait``: wait
            until it is restarted.
        lost_after: Timeout of a heartbeat, in seconds.
        settings: Settings that must agree between all roles (see ``shared_settings``); None: not compared.
        keep_steps: Steps to keep before the first step at which any role would resume; None: keep all.

    Raises:
        MgrpoError: The store cannot be written, or the folder is not a store.
    """

    def __init__(
        self,
        root: Path,
        role: str,
        *,
        rank: int = 0,
        num_ranks: int = 1,
        first_step: int = 0,
        peers: Sequence[str],
        on_loss: Literal["error", "wait"] = "error",
        lost_after: float = 300.0,
        settings: Mapping[str, Any] | None = None,
        keep_steps: int | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.role = role
        self.ledger = Ledger()
        self._root = root
        self._stop = root.parent / STOP
        self._disk = disk or Disk()
        self._rank = rank
        self._num_ranks = num_ranks
        self._writer = StoreWriter(root, role, rank, disk=disk)
        self._tail = Tail(root, disk=disk)
        self._said = {record.place: record.hash for record in self._writer.recovered}
        self._peers = {peer: Peer(peer) for peer in peers}
        self._deadlock = Deadlock(role)
        self._on_loss = on_loss
        self.lost_after = lost_after
        self._keep_steps = keep_steps
        self._saved = first_step
        """Step at which this role would resume after a restart."""
        steps = [record.key.step for record in self._writer.recovered if record.kind != "members"]
        self._oldest = min([first_step, *steps])  # first step whose records are all still in the store
        self._state: dict[str, object] = {}
        self._reading = threading.Lock()
        self._ended = threading.Event()
        self._agreement = Agreement(role, settings, self._writer.incarnation)
        self.say([self._record("begin", None), *self._agreement.said(self._rank)])
        self.refresh()
        # Records from before this process started; peers may have died since they wrote them.
        self._earlier = self.ledger.find("members", "train", NOWHERE.step)
        self._opened = time.monotonic()
        self._heart = threading.Thread(target=self._beat, name=f"heart of {role}", daemon=True)
        self._heart.start()

    def say(self, records: Sequence[Record]) -> None:
        """Publish records, except those with unchanged content; raise MgrpoError if they cannot be written."""
        new = [record for record in records if self._said.get(record.place) != record.hash]
        self._writer.publish(new)
        # Only after `publish` succeeded: a failed record must not count as published.
        self._said |= {record.place: record.hash for record in new}

    def refresh(self) -> bool:
        """Read new records into the ledger; return whether there were any.

        Raises:
            DataError: The store is damaged.
        """
        # Threads may wait at once; each record must enter the ledger once, in order.
        with self._reading:
            entries = self._tail.poll()
            self.ledger.add(entry.record for entry in entries)
            return bool(entries)

    def until(self, found: Callable[[], T | None], what: str, stop: threading.Event | None = None) -> T:
        """Poll until ``found`` returns a value, and return it.

        Args:
            found: Looks in the ledger; returns None while the value is missing.
            what: What is awaited, in words, for ``mgrpo store`` and errors.
            stop: Event that ends the wait.

        Raises:
            PeerLost: A peer is gone.
            RunStopped: The run was asked to stop.
            InterruptedError: ``stop`` was set.
        """
        pause, _ = PAUSES
        self._state["waits_for"] = what
        try:
            while True:
                self.refresh()
                if (value := found()) is not None:
                    return value
                self.check(what)
                self._deadlock.look(what, {name: peer.waits_for for name, peer in self._peers.items()})
                if stop is not None and stop.is_set():
                    raise InterruptedError(what)
                time.sleep(pause)
                pause = min(pause * 1.3, PAUSES[1])
        finally:
            self._state.pop("waits_for", None)

    def at(self, **state: object) -> None:
        """Set what ``mgrpo store`` shows about this role; sent with the next heartbeat.

        Args:
            **state: Values that JSON can hold, such as the step.
        """
        self._state |= state

    def close_step(self, step: int, *, saved: int) -> None:
        """Merge the records of a finished step into one segment, and drop older records from memory and store.

        Args:
            step: The finished training step.
            saved: Step at which this role would resume after a restart.
        """
        oldest = 0
        if self._keep_steps is not None:
            if saved > self._saved:
                self._saved = saved
                self._member("save", None)
            oldest = min(self._saved, self._begin_again()) - self._keep_steps
        self._writer.close_step(step, drop_before=oldest)
        self._oldest = max(self._oldest, oldest)
        self.ledger.forget(step)
        kept = [place for place in self._said if place[2].step >= step or place[0] == "members"]
        self._said = {place: self._said[place] for place in kept}

    def close(self, error: BaseException | None = None) -> None:
        """Publish that this role has ended, and why. A second call does nothing.

        Args:
            error: The error that ended it; None: it is done.
        """
        if self._ended.is_set():
            return
        self._ended.set()
        # The heartbeat ends first, so that none follows the last record.
        self._heart.join()
        self._member(ending(error), f"{type(error).__name__}: {error}" if error else None)

    def _member(self, event: str, reason: str | None) -> None:
        self.say([self._record(event, reason)])

    def _record(self, event: str, reason: str | None) -> Record:
        text = f"incarnation {self._writer.incarnation}" + (f": {reason}" if reason else "")
        place, saved, ranks = NOWHERE._replace(query=self._rank), self._saved, self._num_ranks
        return Record("members", "train", place, self.role, event=event, text=text, version=saved, ranks=ranks)

    def _begin_again(self) -> int:
        """First step at which any peer would resume after a restart; 0 if one has not published it."""
        told = self._told(self._rank)
        return min(((told[peer].version or 0) if peer in told else 0 for peer in self._peers), default=self._saved)

    def _told(self, rank: int) -> dict[str, Record]:
        """Last member record of each peer's rank; records from before this process count only when a peer is lost."""
        restarting = self._on_loss == "wait" or time.monotonic() - self._opened < self.lost_after
        return {
            record.role: record
            for record in self.ledger.find("members", "train", NOWHERE.step)
            if record.role in self._peers
            and record.key == NOWHERE._replace(query=rank)
            and not (restarting and record in self._earlier)
        }

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._writer.beat(**self._state)

    def check(self, what: str) -> None:
        """Require that the run continues and, with ``on_loss: error``, that every peer lives.

        Args:
            what: What this role waits for, in words.

        Raises:
            RunStopped: The run or a peer was asked to stop.
            PeerLost: A peer is gone.
            ConfigurationError: A peer has another number of ranks.
            DataError: A peer needs records that have been removed.
        """
        if self._num_ranks == 1 and self._disk.exists(self._stop):  # several ranks stop together, after a step
            raise RunStopped(
                f"{self.role!r} stopped while it waited for {what}, because {self._stop} exists.", hint=_GO_ON
            )
        self._agree()
        for name, record in self._told(0).items():
            if record.ranks != self._num_ranks:
                raise ConfigurationError(
                    f"role {name!r} has {record.ranks} ranks and {self.role!r} has {self._num_ranks}.",
                    hint="give all roles the same number of devices and nodes: equal ranks play together.",
                )
        told = self._told(self._rank)
        for name, record in told.items():
            if record.event == "stop" or (record.event == "interrupt" and self._on_loss == "error"):
                raise RunStopped(f"role {name!r} has stopped while {self.role!r} waits for {what}.", hint=_GO_ON)
            if record.event == "begin" and (record.version or 0) < self._oldest:
                raise DataError(
                    f"role {name!r} starts at step {record.version}, but {self.role!r} has removed its records "
                    f"before step {self._oldest}.",
                    hint="resume it with --ckpt_path=last, or resume all roles from one step; raise peers.keep_steps "
                    "to keep more.",
                )
        for name, peer in self._peers.items():
            silent = peer.silence(partial(self._sign, name))
            gone, lost, hint = None, False, ""
            if (last := told.get(name)) is not None and last.event in GONE:
                gone, lost = GONE[last.event].format(last.text), True
                hint = "correct what stopped it and resume both; no record is lost."
            elif silent > min(QUIET, self.lost_after):
                gone, lost = f"has sent no heartbeat for {silent:.0f} s", silent > self.lost_after
                hint = "start or resume it (see `mgrpo store RUN`); no record is lost."
            if lost and self._on_loss == "error":
                raise PeerLost(f"role {name!r} {gone} while {self.role!r} waits for {what}.", hint=hint)
            peer.tell(gone, what)

    def _agree(self) -> None:
        """Compare settings with every living peer."""
        told = self._told(self._rank)
        for record in self.ledger.find("members", "train", NOWHERE.step):
            if record.role in self._peers and self._agreement.is_new(record, self._rank):
                lives = record not in self._earlier or self._peers[record.role].beats > 1 or record.role in told
                with suppress(OSError):
                    self._agreement.compare(record, latest=self._alive(record.role)[0], lives=lives)

    def past(self, role: str, stage: str, step: int) -> bool:
        """Whether a peer's process has moved on to a later batch, as far as the file system can say.

        Args:
            role: Name of the peer.
            stage: Stage of the batch in question.
            step: Step of the batch in question.
        """
        alive = None
        with suppress(OSError):
            _, alive = self._alive(role)
        state = {} if alive is None else alive.state
        # Validation at step n is played before training step n.
        now, place = state.get("step"), (step, stage == "train")
        return isinstance(now, int) and (now, state.get("stage") == "train") > place

    def _sign(self, role: str) -> tuple[object, Mapping[str, object]]:
        latest, alive = self._alive(role)
        return (latest, alive and alive.beat), alive.state if alive else {}

    def _alive(self, role: str) -> tuple[int, Alive | None]:
        """Number of a peer's latest incarnation, and its heartbeat file."""
        home = self._root / "writers" / writer_name(role, self._rank)
        latest = max(incarnations(self._disk, home), default=0)
        return latest, read_alive(self._disk, incarnation_folder(home, latest))
