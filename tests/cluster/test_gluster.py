"""Roles that share a store on a real network filesystem, each through a mount of its own.

Left out unless asked for, as it installs GlusterFS and needs root and /dev/fuse:
MGRPO_TEST_GLUSTER=1 pytest tests/cluster/test_gluster.py
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgrpo_lightning.commands.store import examine
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.store.record import Record
from mgrpo_lightning.store.tail import Tail
from mgrpo_lightning.store.writer import StoreWriter
from tests.support.started import Started
from tests.support.teams import QUICKSTART
from tests.test_decoupled import ROLES, assert_same, finish

pytestmark = pytest.mark.skipif(os.environ.get("MGRPO_TEST_GLUSTER") != "1", reason="MGRPO_TEST_GLUSTER is not 1")
RECORDS = 2000


@pytest.fixture(scope="module")
def mounts(root: Path) -> Iterator[list[Path]]:
    script = str(root / "tests" / "cluster" / "gluster.sh")
    started = subprocess.run([script, "start", "2"], check=True, stdout=subprocess.PIPE, text=True)
    yield [Path(line) for line in started.stdout.split()]
    subprocess.run([script, "stop"], check=True)


def call(number: int) -> Record:
    return Record("delegations", "train", Key(0, number, 0, 1), "searcher", text=f"find {number}", parent=0)


def test_records_come_through_another_mount_once_and_in_order(mounts: list[Path]) -> None:
    """Also over restarts of the writer, and while closed steps are merged and old ones removed."""
    chance = random.Random(0)
    store = [mount / "records" / "store" for mount in mounts]
    store[0].parent.mkdir()

    def write() -> None:
        number = 0
        while number < RECORDS:
            writer = StoreWriter(store[0], "main")
            for _ in range(chance.randrange(5, 40)):
                count = chance.randrange(1, 20)
                writer.publish([call(one) for one in range(number, min(number + count, RECORDS))])
                number = min(number + count, RECORDS)
                if chance.random() < 0.1:
                    writer.close_step(0)
                time.sleep(chance.random() * 0.02)

    writing = threading.Thread(target=write)
    writing.start()
    while not (store[1] / "store.json").exists():
        time.sleep(0.05)
    tail = Tail(store[1])
    seen: dict[int, int] = {}
    give_up = time.monotonic() + 300
    while len(seen) < RECORDS:
        assert time.monotonic() < give_up, f"{len(seen)} of {RECORDS} records came"
        latest = 0
        for entry in tail.poll():
            if entry.incarnation > latest:  # a restarted writer says again what counts
                latest, last = entry.incarnation, -1
            assert entry.record.key.query > last
            last = entry.record.key.query
            seen[entry.record.key.query] = entry.incarnation
        time.sleep(0.02)
    writing.join()
    assert sorted(seen) == list(range(RECORDS))
    assert all(not status.problems for status in examine(store[1]))


def test_a_decoupled_run_over_two_mounts_is_bitwise_one_process_on_a_local_disk(
    mounts: list[Path], tmp_path: Path
) -> None:
    Started(QUICKSTART.command("fit", tmp_path, "coupled")).finish()
    finish(
        [
            Started(QUICKSTART.command("fit", mount, "run", "--role", role))
            for mount, role in zip(mounts, ROLES, strict=True)
        ]
    )
    assert_same(mounts[0] / "run", tmp_path / "coupled")
