"""Scope of statistics and of weights, from a step's rewards to its rows."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.algorithm.alignment import AlignmentConfig, align
from mgrpo_lightning.algorithm.credit import Credit, TrajectoryCredit, assign

Rewards = list[list[list[float | None]]]

MODES = ("duplicate_drop", "weights")
REWARD = st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.6, 1.0])
ROLLOUTS = st.lists(st.lists(REWARD | st.none(), max_size=6), min_size=1, max_size=5)
STEP = st.lists(ROLLOUTS, min_size=1, max_size=4)
CONFIG = st.builds(AlignmentConfig, st.sampled_from(MODES), st.integers(1, 8))


def credit_of(rewards: Rewards, config: AlignmentConfig) -> Credit:
    return assign(rewards, alignment=config, seeds=range(100, 100 + len(rewards)), std_floor=1e-6)


def by_hand(rewards: Rewards, config: AlignmentConfig, seeds: range) -> dict[tuple[int, int, int], tuple[float, float]]:
    """Advantage and coefficient by a loop over the literal slots of the paper, duplicates written out."""
    queries: list[list[tuple[int, int, float]]] = []
    for query, seed in zip(rewards, seeds, strict=True):
        scored = [[(i, r) for i, r in enumerate(rollout) if r is not None] for rollout in query]
        indices = align([len(s) for s in scored], config, seed).indices
        assert indices is not None
        queries.append([(k, *scored[k][j]) for k, row in enumerate(indices) for j in row if j >= 0])
    num_queries = sum(bool(slots) for slots in queries)
    result: dict[tuple[int, int, int], tuple[float, float]] = {}
    for q, slots in enumerate(queries):
        for k, i, r in slots:
            mean = math.fsum(x for _, _, x in slots) / len(slots)
            std = math.sqrt(math.fsum((x - mean) ** 2 for _, _, x in slots) / len(slots))
            _, so_far = result.get((q, k, i), (0.0, 0.0))
            result[q, k, i] = ((r - mean) / std if std > 1e-6 else 0.0, so_far + 1 / (num_queries * len(slots)))
    return result


@given(rewards=STEP, slots=st.integers(1, 8))
def test_rows_are_the_literal_slots_collapsed(rewards: Rewards, slots: int) -> None:
    config = AlignmentConfig("duplicate_drop", slots)
    expected = by_hand(rewards, config, range(100, 100 + len(rewards)))
    rows = credit_of(rewards, config).rows
    assert [(row.query, row.rollout, row.index) for row in rows] == sorted(expected)
    for row in rows:
        advantage, coefficient = expected[row.query, row.rollout, row.index]
        assert row.advantage == pytest.approx(advantage, rel=1e-9, abs=1e-12)
        assert row.coefficient == pytest.approx(coefficient, rel=1e-12)


@given(rewards=STEP, config=CONFIG, data=st.data())
def test_rewards_of_other_queries_never_change_mine(
    rewards: Rewards, config: AlignmentConfig, data: st.DataObject
) -> None:
    mine = data.draw(st.integers(0, len(rewards) - 1))
    others = [list(chain(*query)) for q, query in enumerate(rewards) if q != mine]
    pool = iter(data.draw(st.permutations(list(chain(*others)))))
    shuffled: Rewards = [
        query if q == mine else [[next(pool) for _ in rollout] for rollout in query] for q, query in enumerate(rewards)
    ]

    def advantages(step: Rewards) -> list[tuple[int, int, float]]:
        return [(r.rollout, r.index, r.advantage) for r in credit_of(step, config).rows if r.query == mine]

    assert advantages(shuffled) == advantages(rewards)


def test_rewards_of_the_other_role_never_change_mine() -> None:
    main: Rewards = [[[1.0], [0.1], [0.0]]]
    searcher: Rewards = [[[0.1, 0.6], [], [1.0]]]
    config = AlignmentConfig(slots=4)
    apart = (credit_of(main, config), credit_of(searcher, config))
    changed = credit_of([[[0.5, 0.5], [], [0.1]]], config)
    assert credit_of(main, config).rows == apart[0].rows
    # One baseline over both roles would give main's best rollout another advantage.
    assert apart[0].rows[0].advantage == pytest.approx((1 - 1.1 / 3) / math.sqrt(1.01 / 3 - (1.1 / 3) ** 2), rel=1e-12)
    assert changed.rows != apart[1].rows


@given(rewards=STEP, config=CONFIG)
def test_each_trajectory_is_one_row_and_all_weigh_one(rewards: Rewards, config: AlignmentConfig) -> None:
    rows = credit_of(rewards, config).rows
    names = Counter((row.query, row.rollout, row.index) for row in rows)
    assert set(names.values()) <= {1}
    if rows:
        assert math.fsum(row.coefficient for row in rows) == pytest.approx(1, rel=1e-12)
    by_rollout = Counter[tuple[int, int]]()
    for row in rows:
        by_rollout[row.query, row.rollout] += row.multiplicity  # type: ignore[assignment]
    assert all(total == pytest.approx(config.slots, rel=1e-12) for total in by_rollout.values())


@given(rewards=STEP, config=CONFIG)
def test_failed_trajectories_leave_as_if_never_made(rewards: Rewards, config: AlignmentConfig) -> None:
    without: Rewards = [[[r for r in rollout if r is not None] for rollout in query] for query in rewards]
    result, expected = credit_of(rewards, config), credit_of(without, config)

    def content(rows: list[TrajectoryCredit]) -> list[tuple[int, int, float, float, float]]:
        return [(r.query, r.rollout, r.multiplicity, r.advantage, r.coefficient) for r in rows]

    assert content(result.rows) == content(expected.rows)
    assert all(rewards[r.query][r.rollout][r.index] is not None for r in result.rows)
    assert result.failed == sum(r is None for query in rewards for rollout in query for r in rollout)


def test_a_failed_reward_is_not_a_zero() -> None:
    rows = credit_of([[[1.0], [0.5], [None]]], AlignmentConfig(slots=1)).rows
    assert [(row.rollout, row.advantage, row.coefficient) for row in rows] == [(0, 1.0, 0.5), (1, -1.0, 0.5)]


@pytest.mark.parametrize("mode", MODES)
def test_a_talkative_rollout_counts_no_more_than_a_quiet_one(mode: str) -> None:
    rewards: Rewards = [[[1.0], [0.1] * 6, [0.5] * 3, []]]
    rows = credit_of(rewards, AlignmentConfig(mode, 4)).rows  # type: ignore[arg-type]
    shares = Counter[int]()
    for row in rows:
        shares[row.rollout] += row.coefficient  # type: ignore[assignment]
    assert list(shares.values()) == pytest.approx([1 / 3] * 3, rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_splitting_the_calls_of_a_rollout_changes_no_other_advantage(mode: str) -> None:
    whole = credit_of([[[0.6], [0.1], [1.0, 0.35]]], AlignmentConfig(mode, 8)).rows  # type: ignore[arg-type]
    split = credit_of([[[0.6] * 4, [0.1], [1.0, 0.35]]], AlignmentConfig(mode, 8)).rows  # type: ignore[arg-type]
    for row, other in zip(whole[1:], split[4:], strict=True):
        assert other.advantage == pytest.approx(row.advantage, rel=1e-12)
        assert other.coefficient == pytest.approx(row.coefficient, rel=1e-12)


@pytest.mark.parametrize("rewards", [[], [[]], [[[], []]], [[[None], []], [[]]]])
def test_a_step_with_nothing_to_train_on_has_no_rows(rewards: Rewards) -> None:
    assert credit_of(rewards, AlignmentConfig()).rows == []


def test_groups_without_signal_are_counted_and_keep_their_share() -> None:
    result = credit_of([[[1.0], [0.0]], [[0.1], [0.1]], [[0.7], []], [[], []]], AlignmentConfig())
    assert (result.num_skipped, result.num_singleton, result.num_degenerate) == (1, 1, 2)
    assert [row.advantage for row in result.rows] == [1, -1, 0, 0, 0]
    assert [row.coefficient for row in result.rows] == pytest.approx([1 / 6] * 4 + [1 / 3])
