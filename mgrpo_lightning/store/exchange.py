"""Exchange: one role's end of the store. It says things, waits for what others say, and notices when one is gone.

Where roles have several ranks, all have as many, and rank r of one plays with rank r of the others: the same queries.
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
from mgrpo_lightning.store.agreement import NOWHERE, Agreement, Deadlock
from mgrpo_lightning.store.disk import Disk
from mgrpo_lightning.store.layout import BEAT, STOP, Alive, incarnation_folder, incarnations, read_alive, writer_name
from mgrpo_lightning.store.ledger import Ledger
from mgrpo_lightning.store.peer import GONE, QUIET, Peer, ending
from mgrpo_lightning.store.record import Record
from mgrpo_lightning.store.tail import Tail
from mgrpo_lightning.store.writer import StoreWriter

T = TypeVar("T")
PAUSES = (0.002, 0.05)
"""Seconds between two looks, at first and after a while."""
_GO_ON = "remove the file `stop` if it is there, and go on with --ckpt_path=last."


class PeerLost(MgrpoError):
    """Another role of a decoupled run has failed or shows no sign of life."""


class Exchange:
    """Say, wait, beat.

    Args:
        root: The store; made if missing.
        role: Whose end it is.
        rank: Of this process among those of its role.
        num_ranks: How many there are.
        first_step: Of training, at which this process begins.
        peers: The roles that are waited for.
        on_loss: ``error``: a peer that ends, fails or shows no sign of life for ``lost_after`` seconds is an error;
            ``wait``: it is waited for, until it is started again.
        lost_after: Seconds.
        settings: That all roles must have alike (see ``shared_settings``), compared when they meet; None: not known.
        keep_steps: What was said of older steps is removed, in steps before the first at which any role would begin
            again; None: nothing is.
        disk: The filesystem.

    Raises:
        MgrpoError: The store cannot be written, or is none.
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
        """Step at which this role begins if it is started again."""
        steps = [record.key.step for record in self._writer.recovered if record.stream != "members"]
        self._oldest = min([first_step, *steps])  # of which all that was said here is kept
        self._state: dict[str, object] = {}
        self._reading = threading.Lock()
        self._ended = threading.Event()
        self._agreement = Agreement(role, settings, self._writer.incarnation)
        self.say([self._record("begin", None), *self._agreement.said(self._rank)])
        self.refresh()
        self._earlier = self.ledger.find("members", "train", NOWHERE.step)  # what stood there about peers at the start
        self._opened = time.monotonic()
        self._heart = threading.Thread(target=self._beat, name=f"heart of {role}", daemon=True)
        self._heart.start()

    def say(self, records: Sequence[Record]) -> None:
        """Publish what has not been said before in the same words.

        Args:
            records: In order.

        Raises:
            MgrpoError: They could not be written.
        """
        new = [record for record in records if self._said.get(record.place) != record.hash]
        self._writer.publish(new)
        self._said |= {record.place: record.hash for record in new}

    def refresh(self) -> bool:
        """Read what is new; whether there was anything.

        Raises:
            DataError: The store is damaged.
        """
        with self._reading:
            entries = self._tail.poll()
            self.ledger.add(entry.record for entry in entries)
            return bool(entries)

    def until(self, found: Callable[[], T | None], what: str, stop: threading.Event | None = None) -> T:
        """Wait for something to stand in the ledger.

        Args:
            found: Looks for it; None: it is not there yet.
            what: In words, for ``mgrpo store`` and errors.
            stop: Gives up when it is set.

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
        """Tell ``mgrpo store`` where this role is.

        Args:
            **state: What JSON can hold, such as the step.
        """
        self._state |= state

    def close_step(self, step: int, *, saved: int) -> None:
        """Make one segment of what was said of a step, forget what was said before it, and remove what nobody needs.

        Args:
            step: Of training, that is over.
            saved: Step at which this role begins if it is started again.
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
        """Say that this role has ended, and why; closing twice is harmless.

        Args:
            error: What ended it; None: it is done.
        """
        if self._ended.is_set():
            return
        self._ended.set()
        self._heart.join()
        self._member(ending(error), f"{type(error).__name__}: {error}" if error else None)

    def _member(self, event: str, reason: str | None) -> None:
        self.say([self._record(event, reason)])

    def _record(self, event: str, reason: str | None) -> Record:
        text = f"incarnation {self._writer.incarnation}" + (f": {reason}" if reason else "")
        place, saved, ranks = NOWHERE._replace(query=self._rank), self._saved, self._num_ranks
        return Record("members", "train", place, self.role, event=event, text=text, version=saved, ranks=ranks)

    def _begin_again(self) -> int:
        """First step at which a peer would begin if it were started again; 0 if one has not said it."""
        told = self._told(self._rank)
        return min(((told[peer].version or 0) if peer in told else 0 for peer in self._peers), default=self._saved)

    def _told(self, rank: int) -> dict[str, Record]:
        """By peer, the last word of a rank on itself; on a life before this process began only when it is lost."""
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
        """Require that the run goes on and, if that is asked for, that every peer lives.

        Args:
            what: Is waited for.

        Raises:
            RunStopped: The run, or a peer, was asked to stop.
            PeerLost: A peer is gone.
            ConfigurationError: A peer has another number of ranks.
            DataError: A peer needs what has been removed.
        """
        if self._num_ranks == 1 and self._disk.exists(self._stop):  # several stop together, behind a step
            raise RunStopped(f"{self.role!r} stopped while it waited for {what}, as {self._stop} asks.", hint=_GO_ON)
        self._agree()
        for name, record in self._told(0).items():
            if record.ranks != self._num_ranks:
                raise ConfigurationError(
                    f"role {name!r} has {record.ranks} ranks and {self.role!r} has {self._num_ranks}.",
                    hint="give all roles as many devices and nodes: rank r of one plays with rank r of the others.",
                )
        told = self._told(self._rank)
        for name, record in told.items():
            if record.event == "stop" or (record.event == "interrupt" and self._on_loss == "error"):
                raise RunStopped(f"role {name!r} has stopped while {self.role!r} waits for {what}.", hint=_GO_ON)
            if record.event == "begin" and (record.version or 0) < self._oldest:
                raise DataError(
                    f"role {name!r} begins with step {record.version}, and what {self.role!r} said before step "
                    f"{self._oldest} has been removed.",
                    hint="resume it with --ckpt_path=last, or all roles from one step; peers.keep_steps keeps more.",
                )
        for name, peer in self._peers.items():
            silent = peer.silence(partial(self._sign, name))
            gone, lost, hint = None, False, ""
            if (last := told.get(name)) is not None and last.event in GONE:
                gone, lost = GONE[last.event].format(last.text), True
                hint = "mend what stopped it and resume both; nothing that was said is lost."
            elif silent > min(QUIET, self.lost_after):
                gone, lost = f"has shown no sign of life for {silent:.0f} s", silent > self.lost_after
                hint = "start or resume it (see `mgrpo store RUN`); nothing that was said is lost."
            if lost and self._on_loss == "error":
                raise PeerLost(f"role {name!r} {gone} while {self.role!r} waits for {what}.", hint=hint)
            peer.tell(gone, what)

    def _agree(self) -> None:
        """Compare settings with every peer that lives."""
        told = self._told(self._rank)
        for record in self.ledger.find("members", "train", NOWHERE.step):
            if record.role in self._peers and self._agreement.is_new(record, self._rank):
                lives = record not in self._earlier or self._peers[record.role].beats > 1 or record.role in told
                with suppress(OSError):
                    self._agreement.compare(record, latest=self._alive(record.role)[0], lives=lives)

    def past(self, role: str, stage: str, step: int) -> bool:
        """Whether a peer's process has gone on to a later play, as far as the filesystem can say.

        Args:
            role: The peer.
            stage: Of the play in question.
            step: Of it.
        """
        alive = None
        with suppress(OSError):
            _, alive = self._alive(role)
        state = {} if alive is None else alive.state
        now, place = state.get("step"), (step, stage == "train")  # validation is played before the step of its number
        return isinstance(now, int) and (now, state.get("stage") == "train") > place

    def _sign(self, role: str) -> tuple[object, Mapping[str, object]]:
        latest, alive = self._alive(role)
        return (latest, alive and alive.beat), alive.state if alive else {}

    def _alive(self, role: str) -> tuple[int, Alive | None]:
        """Number of a peer's last incarnation, and what it says about itself."""
        home = self._root / "writers" / writer_name(role, self._rank)
        latest = max(incarnations(self._disk, home), default=0)
        return latest, read_alive(self._disk, incarnation_folder(home, latest))
