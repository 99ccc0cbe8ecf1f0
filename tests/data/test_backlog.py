"""What a role with a lag or a queue trains on, and when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mgrpo_lightning.data.backlog import LONGEST, Backlog
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.records.batch import AlignedBatch, TrainingRow
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Segment, Span, Trajectory
from mgrpo_lightning.roles.config import RoleConfig

CALLS = (3, 0, 5, 2, 4, 1, 6, 3)
"""Of the searcher, by step; two queries and two rollouts share them."""


def trajectory(role: str, key: Key) -> Trajectory:
    said = Segment([Span("action", (1,), (0.0,))])
    return Trajectory(role, key, "", segments=[said], parent=0 if key.invocation else None)


def play(step: int) -> list[Group]:
    groups = []
    for query in range(2):
        rollouts = []
        for k in range(2):
            count = len(range(2 * query + k, CALLS[step], 4))
            subs = [trajectory("searcher", Key(step, query, k, i + 1)) for i in range(count)]
            rollouts.append(Rollout(trajectory("main", Key(step, query, k, 0)), subs))
        groups.append(Group(Question(f"{step}", "", ()), rollouts))
    return groups


def align(groups: Sequence[Group], role: str, step: int) -> AlignedBatch:
    members = [t for group in groups for rollout in group.rollouts for t in rollout.trajectories(role)]
    return AlignedBatch(
        role,
        [row for t in members for row in TrainingRow.of(t, advantage=1.0, coefficient=1.0)],
        num_groups=len(groups),
    )


def refuse(step: int) -> list[Group]:
    raise AssertionError(f"step {step} is not to be read again")


def role(lag: int = 0, queue: int | None = None) -> RoleConfig:
    return RoleConfig("pocket", lag=lag, queue=queue)


def walk(backlog: Backlog, steps: range) -> list[dict[str, list[Key]]]:
    trained = []
    for step in steps:
        trained.append({name: [row.key for row in batch.rows] for name, batch in backlog.due(step).items()})
        backlog.add(step, play(step))
    return trained


def keys(step: int, name: str) -> list[Key]:
    return [t.key for group in play(step) for rollout in group.rollouts for t in rollout.trajectories(name)]


def test_every_role_trains_on_what_was_played_its_lag_ago() -> None:
    found = walk(Backlog({"main": role(1), "searcher": role(3), "reader": role()}, align, refuse), range(8))
    assert [one["main"] for one in found] == [[], *(keys(step, "main") for step in range(7))]
    assert [one["searcher"] for one in found] == [[], [], [], *(keys(step, "searcher") for step in range(5))]
    assert all("reader" not in one for one in found)


def test_a_queue_gives_whole_batches_of_whichever_steps_first_in_first_out() -> None:
    found = [one["searcher"] for one in walk(Backlog({"searcher": role(queue=4)}, align, refuse), range(8))]
    assert {len(batch) for batch in found} == {0, 4}
    everything = [key for step in range(8) for key in sorted(keys(step, "searcher"))]
    assert [key for batch in found for key in sorted(batch)] == everything[: sum(map(len, found))]
    assert any(len({key.step for key in batch}) > 1 for batch in found)


def test_the_groups_of_a_batch_from_a_queue_hold_nothing_else() -> None:
    seen: list[list[Group]] = []

    def look(groups: Sequence[Group], name: str, step: int) -> AlignedBatch:
        seen.append(list(groups))
        return align(groups, name, step)

    walk(Backlog({"searcher": role(queue=4)}, look, refuse), range(8))
    for groups in filter(None, seen):
        places = [(group.rollouts[0].main.key.step, group.rollouts[0].main.key.query) for group in groups]
        assert len(set(places)) == len(places)
        assert sum(len(rollout.subs) for group in groups for rollout in group.rollouts) == 4
        assert all(len(group.rollouts) == 2 for group in groups)


def test_no_more_is_kept_than_is_still_to_come() -> None:
    backlog = Backlog({"main": role(2), "searcher": role(queue=1)}, align, refuse)
    walk(backlog, range(8))
    assert sorted(backlog._waiting) == [6, 7]
    assert len(backlog._queues["searcher"]._waiting) == LONGEST
    without = Backlog({"main": role()}, align, refuse)
    assert walk(without, range(8)) == 8 * [{}]
    assert not without._waiting


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(start: int) -> None:
    roles = {"main": role(1), "searcher": role(queue=4), "reader": role(3)}
    assert walk(Backlog(roles, align, play), range(start, 8)) == walk(Backlog(roles, align, refuse), range(8))[start:]


@pytest.mark.parametrize(("lag", "queue"), [(-1, None), (0, 0), (1, 8)])
def test_settings_that_say_nothing_are_refused(lag: int, queue: int | None) -> None:
    with pytest.raises(ConfigurationError, match="HINT"):
        role(lag, queue)
