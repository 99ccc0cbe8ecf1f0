"""align_role: each role's batch from its own trajectories and scores alone, weighted, and without failures."""

from __future__ import annotations

import copy

import pytest

from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.data.aligned_batches import align_role
from mgrpo_lightning.records.batch import AlignedBatch
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Score, Segment, Span, Trajectory


def trajectory(role: str, key: Key, *, actions: int = 2) -> Trajectory:
    spans = [Span("observation", (1, 2)), Span("action", (3,) * actions, (-0.5,) * actions)]
    return Trajectory(role, key, "task", segments=[Segment(spans)], parent=0 if key.invocation else None)


def group(query: int, calls: list[list[float]], main: list[float]) -> Group:
    """K rollouts, each with the scores of its sub trajectories and of main."""
    rollouts = []
    for k, (subs, reward) in enumerate(zip(calls, main, strict=True)):
        rollout = Rollout(
            trajectory("main", Key(0, query, k, 0)),
            [trajectory("searcher", Key(0, query, k, i + 1), actions=1 + i) for i in range(len(subs))],
        )
        rollout.scores = {i: Score(1.0, total=total) for i, total in enumerate([reward, *subs])}
        rollouts.append(rollout)
    return Group(Question(str(query), "?", ("x",)), rollouts)


def aligned(groups: list[Group], role: str, *, mode: str = "weights", slots: int = 4, step: int = 0) -> AlignedBatch:
    alignment = AlignmentConfig(mode, slots)  # type: ignore[arg-type]
    return align_role(groups, role, ObjectiveConfig(), alignment, seed=0, step=step)


@pytest.fixture
def groups() -> list[Group]:
    return [
        group(0, [[0.1, 0.9], [], [0.5]], [1.0, 0.0, 0.1]),
        group(1, [[0.2], [0.2], [0.2, 0.7, 0.4]], [0.0, 1.0, 1.0]),
    ]


def test_a_batch_holds_its_role_only(groups: list[Group]) -> None:
    assert [row.key.invocation for row in aligned(groups, "main").rows] == [0] * 6
    assert [row.key for row in aligned(groups, "searcher").rows] == [
        sub.key for g in groups for rollout in g.rollouts for sub in rollout.subs
    ]


@pytest.mark.parametrize(("role", "other"), [("main", "searcher"), ("searcher", "main")])
def test_another_role_s_scores_never_change_a_batch(groups: list[Group], role: str, other: str) -> None:
    before = aligned(groups, role)
    changed = copy.deepcopy(groups)
    for rollout in (rollout for g in changed for rollout in g.rollouts):
        for t in rollout.trajectories(other):
            rollout.scores[t.key.invocation] = Score(1.0, total=t.key.rollout * 7.0 + t.key.query)
    after = aligned(changed, role)
    assert [(r.advantage, r.coefficient) for r in after.rows] == [(r.advantage, r.coefficient) for r in before.rows]


@pytest.mark.parametrize("mode", ["weights", "duplicate_drop"])
def test_segments_are_rows_and_slots_are_filled_with_trajectories(groups: list[Group], mode: str) -> None:
    before = aligned(groups, "searcher", mode=mode, slots=2)
    folded = groups[0].rollouts[0].subs[1]
    said = Segment([Span("observation", (9,)), Span("action", (4, 5, 6), (-1.0,) * 3)])
    folded.segments += [said, Segment([Span("observation", (8, 8))])]
    after = aligned(groups, "searcher", mode=mode, slots=2)
    assert [row.key for row in after.rows].count(folded.key) == 2, "a segment without a sampled token is no row"
    first, second = (row for row in after.rows if row.key == folded.key)
    assert (second.ids.tolist(), second.behaviour.tolist(), second.segment) == ([9, 4, 5, 6], [-1.0] * 3, 1)
    assert (first.advantage, first.coefficient) == (second.advantage, second.coefficient)
    values = [{row.key: (row.advantage, row.coefficient) for row in batch.rows} for batch in (before, after)]
    assert values[0] == values[1], "its slots, advantage and coefficient are those of one trajectory"


@pytest.mark.parametrize("mode", ["weights", "duplicate_drop"])
def test_coefficients_add_up_and_rollouts_count_alike(groups: list[Group], mode: str) -> None:
    rows = aligned(groups, "searcher", mode=mode).rows
    assert sum(row.coefficient for row in rows) == pytest.approx(1)
    shares: dict[tuple[int, int], float] = {}
    for row in rows:
        place = (row.key.query, row.key.rollout)
        shares[place] = shares.get(place, 0) + row.coefficient
    assert shares == pytest.approx({(0, 0): 1 / 4, (0, 2): 1 / 4, (1, 0): 1 / 6, (1, 1): 1 / 6, (1, 2): 1 / 6})


def test_main_fills_one_slot_whatever_the_alignment(groups: list[Group]) -> None:
    for mode in ("weights", "duplicate_drop"):
        assert [row.coefficient for row in aligned(groups, "main", mode=mode, slots=8).rows] == [1 / 6] * 6


def test_failed_trajectories_leave_before_mean_and_std(groups: list[Group]) -> None:
    groups[0].rollouts[0].scores[1] = Score(1.0, total=0.0, failed=True)
    batch = aligned(groups, "searcher")
    assert batch.num_failed == 1
    first = [row for row in batch.rows if row.key.query == 0]
    assert [row.advantage for row in first] == pytest.approx([1, -1])  # 0.9 and 0.5 are left


def test_alignment_is_the_same_again_and_differs_by_step() -> None:
    calls = [[float(i) for i in range(7)], [1.0] * 3]
    one, again, other = (
        [
            row.coefficient
            for row in aligned([group(0, calls, [0, 1])], "searcher", mode="duplicate_drop", step=step).rows
        ]
        for step in (3, 3, 4)
    )
    assert one == again
    assert one != other


def test_a_query_without_calls_is_skipped_and_counted() -> None:
    batch = aligned([group(0, [[], []], [0, 1]), group(1, [[0.1], [0.2]], [0, 1])], "searcher")
    assert batch.num_groups == 1
    assert sum(row.coefficient for row in batch.rows) == pytest.approx(1)
    assert aligned([group(0, [[], []], [0, 1])], "searcher").rows == []
