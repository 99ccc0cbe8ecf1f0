from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.algorithm.alignment import AlignmentConfig, align
from mgrpo_lightning.algorithm.coefficients import coefficients

QUERIES = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5)


@given(queries=QUERIES, slots=st.integers(1, 8), mode=st.sampled_from(["duplicate_drop", "weights"]))
def test_rollouts_and_queries_weigh_the_same_however_many_calls_they_made(
    queries: list[list[int]], slots: int, mode: str
) -> None:
    aligned = [align(counts, AlignmentConfig(mode, slots), seed=3).multiplicity for counts in queries]  # type: ignore[arg-type]
    result = coefficients([[m for rollout in query for m in rollout] for query in aligned])
    filled = [sum(count > 0 for count in counts) for counts in queries]
    for counts, values, num_filled in zip(queries, result, filled, strict=True):
        position = 0
        for count in counts:
            share = sum(values[position : position + count])
            position += count
            expected = 1 / num_filled / sum(n > 0 for n in filled) if count else 0.0
            assert share == pytest.approx(expected, rel=1e-12)


def test_main_is_one_over_queries_and_scored_rollouts() -> None:
    assert coefficients([[1.0] * 8, [1.0] * 5]) == [[1 / 16] * 8, [1 / 10] * 5]


def test_sub_is_one_over_queries_rollouts_and_slots() -> None:
    values = coefficients([[8 / 3] * 3 + [4.0] * 2, [2.0, 6.0]])
    assert values[0] == pytest.approx([1 / 12] * 3 + [1 / 8] * 2, rel=1e-12)
    assert values[1] == pytest.approx([1 / 8, 3 / 8], rel=1e-12)


def test_queries_without_a_call_are_skipped_and_not_counted() -> None:
    assert coefficients([[1.0], [], [0.0, 0.0]]) == [[1.0], [], [0.0, 0.0]]
    assert coefficients([[], []]) == [[], []]
    assert coefficients([]) == []
