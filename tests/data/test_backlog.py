"""What a role with a lag trains on, and when."""

from __future__ import annotations

from mgrpo_lightning.data.backlog import Backlog
from mgrpo_lightning.data.batch import AlignedBatch

ROLES = ("main", "searcher", "reader")


def played(step: int) -> dict[str, AlignedBatch]:
    return {role: AlignedBatch(f"{role} {step}", []) for role in ROLES}


def walk(backlog: Backlog, steps: range) -> list[dict[str, str]]:
    trained = []
    for step in steps:
        due = backlog.due(step)
        now = played(step)
        backlog.add(step, now)
        trained.append({role: batch.role for role, batch in (now | due).items()})
    return trained


def refuse(step: int) -> dict[str, AlignedBatch]:
    raise AssertionError(f"step {step} is not to be read again")


def test_every_role_trains_on_what_was_played_its_lag_ago() -> None:
    found = walk(Backlog({"searcher": 1, "reader": 3}, refuse), range(5))
    assert [one["main"] for one in found] == [f"main {step}" for step in range(5)]
    assert [one["searcher"] for one in found] == ["searcher", *(f"searcher {step}" for step in range(4))]
    assert [one["reader"] for one in found] == [*3 * ["reader"], "reader 0", "reader 1"]


def test_no_more_is_kept_than_is_still_to_come() -> None:
    backlog = Backlog({"reader": 2}, refuse)
    walk(backlog, range(9))
    assert sorted(backlog._waiting) == [7, 8]
    without = Backlog({}, refuse)
    walk(without, range(9))
    assert not without._waiting


def test_a_resumed_run_reads_what_it_has_not_trained_on_yet() -> None:
    read: list[int] = []

    def again(step: int) -> dict[str, AlignedBatch]:
        read.append(step)
        return played(step)

    lags = {"searcher": 1, "reader": 3}
    assert walk(Backlog(lags, again), range(4, 8)) == walk(Backlog(lags, refuse), range(8))[4:]
    assert read == [3, 1, 2]
