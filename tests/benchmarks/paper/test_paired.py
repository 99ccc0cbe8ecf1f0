"""The paired test is exact."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paper.paired import sign_flip


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_the_paired_test_counts_all_assignments_of_signs(changes: list[int]) -> None:
    sums = [sum(signs) for signs in itertools.product(*((change, -change) for change in changes))]
    expected = sum(abs(total) >= abs(sum(changes)) for total in sums) / len(sums)
    assert sign_flip(changes) == pytest.approx(expected)
