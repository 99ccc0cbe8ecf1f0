"""An exchange: what it makes of peers that end, fail, stop or fall silent, and of a run that is asked to stop."""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError, Interrupted, MgrpoError, RunStopped
from mgrpo_lightning.store.disk import TRIES, Disk
from mgrpo_lightning.store.exchange import Exchange, PeerLost
from mgrpo_lightning.store.tail import Tail


@pytest.mark.parametrize("ending", [None, MgrpoError("full."), RunStopped("asked to.")])
def test_what_ended_a_peers_earlier_life_counts_only_if_it_does_not_come_back(
    tmp_path: Path, ending: MgrpoError | None
) -> None:
    root = tmp_path / "store"
    Exchange(root, "searcher", peers=[]).close(ending)
    main = Exchange(root, "main", peers=["searcher"])
    looks = iter([None, None, "there"])
    assert main.until(lambda: next(looks), "a report") == "there"
    again = Exchange(root, "searcher", peers=[])
    main.refresh()
    again.close(ending)  # the same again, but of the life that counts
    with pytest.raises(RunStopped if isinstance(ending, RunStopped) else PeerLost):
        main.until(lambda: None, "a report")
    main.close()
    late = Exchange(root, "main", peers=["searcher"], lost_after=0.0)
    with pytest.raises(MgrpoError, match="searcher"):
        late.until(lambda: None, "a report")
    late.close()


@pytest.mark.parametrize("ending", [None, MgrpoError("full."), RunStopped("asked to.")])
def test_who_waits_never_takes_an_earlier_life_for_the_last(tmp_path: Path, ending: MgrpoError | None) -> None:
    root = tmp_path / "store"
    Exchange(root, "searcher", peers=[]).close(ending)
    main = Exchange(root, "main", peers=["searcher"], on_loss="wait", lost_after=0.0)
    looks = iter([None, None, "there"])
    assert main.until(lambda: next(looks), "a report") == "there"
    main.close()


@pytest.mark.parametrize("ending", [Interrupted(signal.SIGTERM), KeyboardInterrupt()])
def test_a_peer_that_a_signal_interrupts_has_stopped_and_is_waited_for_where_that_is_asked(
    tmp_path: Path, ending: BaseException
) -> None:
    root = tmp_path / "store"
    main = Exchange(root, "main", peers=["searcher"])
    patient = Exchange(root, "reader", peers=["searcher"], on_loss="wait")
    Exchange(root, "searcher", peers=[]).close(ending)
    with pytest.raises(RunStopped, match=r"role 'searcher' has stopped while 'main' waits for a report.*--ckpt_path"):
        main.until(lambda: None, "a report")
    looks = iter([None, None, "there"])
    assert patient.until(lambda: next(looks), "a report") == "there"
    main.close()
    patient.close()


def test_a_peer_is_past_a_play_when_it_is_at_a_later_one(tmp_path: Path) -> None:
    root = tmp_path / "store"
    main = Exchange(root, "main", peers=["searcher"])
    assert not main.past("searcher", "train", 3), "it has not begun"
    searcher = Exchange(root, "searcher", peers=[])
    assert not main.past("searcher", "train", 3), "it has said nothing yet"
    searcher.at(stage="train", step=4, round=2)
    give_up = time.monotonic() + 20
    while not main.past("searcher", "train", 3):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert main.past("searcher", "validate", 4)  # before the step of its number
    assert not main.past("searcher", "train", 4)
    assert not main.past("searcher", "validate", 5)
    searcher.close()
    Exchange(root, "searcher", peers=[]).close()
    assert not main.past("searcher", "train", 3), "its next life has not come so far"
    main.close()


def test_roles_with_different_numbers_of_ranks_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "store"
    main = Exchange(root, "main", peers=["searcher"], num_ranks=2)
    searcher = Exchange(root, "searcher", peers=[])
    with pytest.raises(ConfigurationError, match=r"role 'searcher' has 1 ranks and 'main' has 2.*HINT: give all roles"):
        main.until(lambda: None, "a report")
    main.close()
    searcher.close()


def test_a_rank_hears_its_own_rank_of_a_peer(tmp_path: Path) -> None:
    root = tmp_path / "store"
    main = [Exchange(root, "main", peers=["searcher"], rank=rank, num_ranks=2) for rank in range(2)]
    searcher = [Exchange(root, "searcher", peers=["main"], rank=rank, num_ranks=2) for rank in range(2)]
    searcher[1].close(MgrpoError("full."))
    looks = iter([None, None, "there"])
    assert main[0].until(lambda: next(looks), "a report") == "there"
    with pytest.raises(PeerLost, match="full"):
        main[1].until(lambda: None, "a report")
    for exchange in (*main, *searcher):
        exchange.close()


class SometimesBlind(Disk):
    """Cannot say at first whether a file is there: stale handles, more than are tried, and an I/O error."""

    def __init__(self) -> None:
        self.errors = [errno.EIO, *[errno.ESTALE] * (TRIES + 1)]

    @override
    def _exists(self, path: Path) -> bool:
        if self.errors:
            raise OSError(self.errors[-1], os.strerror(self.errors.pop()), str(path))
        return super()._exists(path)


def test_a_run_that_is_asked_to_stop_does_so_while_it_waits(tmp_path: Path) -> None:
    root, disk = tmp_path / "store", SometimesBlind()
    main, searcher = (Exchange(root, role, peers=[], on_loss="wait", disk=disk) for role in ("main", "searcher"))
    asking = threading.Timer(0.1, (tmp_path / "stop").touch)
    asking.start()
    with pytest.raises(
        RunStopped, match=r"'main' stopped while it waited for a report.*HINT: remove the file"
    ) as caught:
        main.until(lambda: None, "a report")
    main.close(caught.value)
    (last,) = [e.record for e in Tail(root).poll() if e.writer == "main-0"][-1:]
    assert last.event == "stop"
    assert not disk.errors
    searcher.close()
    asking.join()


def test_a_silent_peer_is_an_error_or_is_waited_for(tmp_path: Path) -> None:
    waiting = Exchange(tmp_path / "store", "main", peers=["searcher"], lost_after=0.0, on_loss="error")
    with pytest.raises(PeerLost, match="no heartbeat"):
        waiting.until(lambda: None, "a report")
    waiting.close()
    patient = Exchange(tmp_path / "store", "main", peers=["searcher"], lost_after=0.0, on_loss="wait")
    looks = iter([None, None, "there"])
    assert patient.until(lambda: next(looks), "a report") == "there"
    patient.close()


def test_the_terminal_is_told_once_who_is_waited_for_and_once_that_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("mgrpo_lightning.store.peer.rank_zero_info", said.append)
    monkeypatch.setattr("mgrpo_lightning.store.peer.BEAT", 0.0)
    root = tmp_path / "store"
    patient = Exchange(root, "main", peers=["searcher"], lost_after=0.0, on_loss="wait")
    for _ in range(3):
        patient.check("a report")
    searcher = Exchange(root, "searcher", peers=[])
    patient.check("a report")
    searcher.close(MgrpoError("no space left on the disk."))
    patient.refresh()
    for _ in range(3):
        patient.check("a report")
    patient.close()
    silent, back, failed = said
    assert re.fullmatch(
        r"role 'searcher' has sent no heartbeat for 0 s. Waiting for a report: start or resume it.", silent
    )
    assert back == "role 'searcher' is back."
    assert "failed (incarnation 1: MgrpoError: no space left on the disk.)" in failed


class CannotList(Disk):
    """Says that listing a writer's folder failed, from some time on."""

    listing = True

    @override
    def _names(self, folder: Path) -> list[str]:
        if not self.listing and folder.name == "searcher-0":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
        return super()._names(folder)


def test_a_disk_that_cannot_say_who_lives_is_no_sign_of_life_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mgrpo_lightning.store.peer.BEAT", 0.0)
    root, disk = tmp_path / "store", CannotList()
    searcher = Exchange(root, "searcher", peers=[])
    main = Exchange(root, "main", peers=["searcher"], disk=disk, lost_after=0.5)
    main.check("a report")
    disk.listing = False
    main.check("a report")
    time.sleep(0.6)
    with pytest.raises(PeerLost, match="no heartbeat"):
        main.check("a report")
    disk.listing = True
    main.close()
    searcher.close()
