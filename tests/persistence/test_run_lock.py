"""The lock of a run folder: one of many takes it, and one that is dead is taken over at once or after a silence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.persistence import run_lock
from mgrpo_lightning.persistence.run_lock import FOLDER, Owner, RunLock
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model

CONTENDER = """
import pathlib, sys, time
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.persistence.run_lock import RunLock
print("ready", flush=True)
for line in sys.stdin:
    lock = RunLock(pathlib.Path(line.strip()), "fit")
    try:
        lock.take()
    except ConfigurationError as error:
        print("refused", error, flush=True)
    else:
        print("trains", flush=True)
"""


class Contender:
    """A process that takes locks and keeps them."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", CONTENDER], stdin=pipe, stdout=pipe, text=True)
        assert self.read() == "ready"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def take(self, folder: Path) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def contenders() -> Iterator[list[Contender]]:
    found = [Contender() for _ in range(3)]
    yield found
    for contender in found:
        contender.end()


def test_of_several_at_once_one_trains_and_the_others_are_refused(tmp_path: Path, contenders: list[Contender]) -> None:
    for number in range(20):
        for contender in contenders:
            contender.take(tmp_path / f"run{number}")
        answers = [contender.read() for contender in contenders]
        assert sorted(answer.split()[0] for answer in answers) == ["refused", "refused", "trains"], answers
        owner = contenders[[answer.split()[0] for answer in answers].index("trains")].process.pid
        for answer in answers:
            assert answer == "trains" or f"process {owner} on {os.uname().nodename}, since 20" in answer
            assert answer == "trains" or "HINT: wait until it ends, stop it, or give another run.name" in answer


def test_one_that_was_killed_is_taken_over_at_once_by_one_of_those_who_want_it(
    tmp_path: Path, contenders: list[Contender]
) -> None:
    first, *others = contenders
    first.take(tmp_path)
    assert first.read() == "trains"
    first.process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, first.process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and still in the table of processes
    started = time.monotonic()
    for contender in others:
        contender.take(tmp_path)
    assert sorted(contender.read().split()[0] for contender in others) == ["refused", "trains"]
    assert time.monotonic() - started < run_lock.SILENCE / 2


def test_a_lock_that_was_given_back_is_free_and_a_second_take_is_no_second_owner(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, "fit")
    lock.take()
    lock.take()
    lock.release()
    with pytest.raises(ConfigurationError, match=f"another fit writes into {tmp_path}: process {os.getpid()}"):
        RunLock(tmp_path, "fit").take()
    other = RunLock(tmp_path, "validate")
    other.take()
    other.release()
    lock.release()
    again = RunLock(tmp_path, "fit")
    again.take()
    again.check()
    assert [path.name for path in (tmp_path / FOLDER / "fit").iterdir()] == ["000002"], "no life leaves anything behind"
    again.release()


def write(folder: Path, owner: Owner, number: int = 1) -> Path:
    path = folder / FOLDER / "fit" / f"{number:06d}" / "owner.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(owner)))
    return path


def test_a_process_id_that_was_given_to_another_process_is_no_sign_of_life(tmp_path: Path) -> None:
    here = run_lock._here()
    write(tmp_path, replace(here, began=here.began - 1))
    lock = RunLock(tmp_path, "fit")
    lock.take()
    lock.release()


def test_on_another_machine_a_beat_is_life_and_a_silence_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner("node7", "node7 another", os.getpid(), 0.0, "yesterday")
    path = write(tmp_path, owner)
    monkeypatch.setattr(run_lock, "SILENCE", 0.4)
    monkeypatch.setattr("mgrpo_lightning.persistence.run_lock.time.sleep", lambda seconds: os.utime(path))
    with pytest.raises(ConfigurationError, match=r"process .* on node7, since yesterday"):
        RunLock(tmp_path, "fit").take()
    monkeypatch.undo()
    monkeypatch.setattr(run_lock, "SILENCE", 0.4)
    lock = RunLock(tmp_path, "fit")
    lock.take()
    lock.check()
    write(tmp_path, owner, number=3)
    with pytest.raises(MgrpoError, match=r"taken over by process .* on node7.*stops without writing"):
        lock.check()
    lock.release()
    assert not json.loads((tmp_path / FOLDER / "fit" / "000003" / "owner.json").read_text())["ended"]


def test_one_that_died_while_it_took_the_lock_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FOLDER / "fit" / "000001").mkdir(parents=True)
    monkeypatch.setattr(run_lock, "SILENCE", 0.2)
    lock = RunLock(tmp_path, "fit")
    lock.take()
    lock.release()


@pytest.mark.slow
@pytest.mark.parametrize("role", [None, "searcher"])
def test_of_two_fits_started_at_once_one_trains_and_one_is_refused(
    tmp_path: Path, root: Path, role: str | None
) -> None:
    model = make_tiny_model(tmp_path / "tiny")
    # Without an end, so that the one that trains is there when the other one comes, however busy the machine is.
    team = write_team_file(tmp_path, model, num_sanity_val_steps=0, limit_val_batches=0, max_steps=-1)
    options = ["--role", role] if role else []  # alone, it waits for its peer
    for number in range(20 if role is None else 3):
        words = [sys.executable, "-m", "mgrpo_lightning", "fit", "--config", str(team), f"--run.name=run{number}"]
        fits = [subprocess.Popen([*words, *options], cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        ended = wait_for_one(fits)
        trains = fits[1 - fits.index(ended)]
        told = ended.communicate()[1]
        assert f"another fit writes into {tmp_path / 'runs' / f'run{number}'}: process {trains.pid}" in told
        assert ended.returncode == 2
        assert trains.poll() is None, "the one that is not refused goes on"
        trains.terminate()
        told = trains.communicate(timeout=60)[1]
        assert trains.returncode == 75, told
        assert "writes into" not in told


def wait_for_one(processes: list[subprocess.Popen[str]], seconds: float = 300) -> subprocess.Popen[str]:
    """The first of the processes that ends; all are killed where none does."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        for process in processes:
            if process.poll() is not None:
                return process
        time.sleep(0.05)
    for process in processes:
        process.kill()
    raise AssertionError([process.communicate()[1] for process in processes])
