from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.algorithm.alignment import AlignmentConfig, align, fill
from mgrpo_lightning.errors import ConfigurationError

COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=8)


def fills(count: int, slots: int) -> Iterator[list[int]]:
    """Every equally likely outcome of ``fill``, by trying all values of all its choices."""
    sizes = [count] * (slots - count) if count <= slots else [count - i for i in range(slots)]
    for choices in itertools.product(*(range(size) for size in sizes)):

        def draw(i: int, n: int, choices: tuple[int, ...] = choices) -> int:
            assert n == sizes[i]
            return choices[i]

        yield fill(count, slots, draw)


@pytest.mark.parametrize(("count", "slots"), [(1, 3), (2, 4), (3, 4), (4, 4), (5, 3), (5, 2), (4, 1)])
def test_expected_multiplicity_is_slots_over_count_by_enumeration(count: int, slots: int) -> None:
    outcomes = list(fills(count, slots))
    assert all(len(outcome) == slots for outcome in outcomes)
    for i in range(count):
        assert sum(o.count(i) for o in outcomes) / len(outcomes) == pytest.approx(slots / count, rel=1e-12)


@pytest.mark.parametrize(("count", "slots"), [(2, 5), (5, 2), (4, 4)])
def test_fill_keeps_originals_and_never_repeats_when_dropping(count: int, slots: int) -> None:
    for outcome in fills(count, slots):
        if count <= slots:
            assert outcome[:count] == list(range(count))
        else:
            assert len(set(outcome)) == slots


def test_dropping_is_uniform_over_subsets_by_enumeration() -> None:
    subsets = Counter(tuple(outcome) for outcome in fills(5, 2))
    assert len(subsets) == math.comb(5, 2)
    assert len(set(subsets.values())) == 1


@given(counts=COUNTS, slots=st.integers(1, 8), seed=st.integers(0, 2**64 - 1))
def test_both_modes_share_one_interface(counts: list[int], slots: int, seed: int) -> None:
    for mode in ("duplicate_drop", "weights"):
        result = align(counts, AlignmentConfig(mode, slots), seed)
        assert [len(values) for values in result.multiplicity] == counts
        assert result.mask == [count > 0 for count in counts]
        for values in filter(None, result.multiplicity):
            assert sum(values) == pytest.approx(slots, rel=1e-12)


@given(counts=COUNTS, slots=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_multiplicities_are_the_literal_slots_collapsed(counts: list[int], slots: int, seed: int) -> None:
    result = align(counts, AlignmentConfig("duplicate_drop", slots), seed)
    assert result.indices is not None
    for count, row, values in zip(counts, result.indices, result.multiplicity, strict=True):
        assert len(row) == slots
        assert values == [row.count(i) for i in range(count)]
        assert (row == [-1] * slots) == (count == 0)


@given(counts=COUNTS, other=COUNTS, seed=st.integers(0, 2**32))
def test_choices_of_a_rollout_depend_on_nothing_but_seed_and_place(
    counts: list[int], other: list[int], seed: int
) -> None:
    config = AlignmentConfig("duplicate_drop", 4)
    alone = align([*counts, 3], config, seed)
    beside = align([*other[: len(counts)], *[7] * (len(counts) - len(other)), 3], config, seed)
    assert alone.indices is not None
    assert beside.indices is not None
    assert alone.indices[-1] == beside.indices[-1]


def test_choices_vary_with_seed_and_rollout() -> None:
    config = AlignmentConfig("duplicate_drop", 8)
    rows = [tuple(row) for seed in range(20) for row in align([3] * 4, config, seed).indices or []]
    assert len(set(rows)) > 50


def test_choices_are_uniform_over_seeds() -> None:
    config = AlignmentConfig("duplicate_drop", 3)
    kept = Counter(i for seed in range(6000) for i in (align([7], config, seed).indices or [])[0])
    # 6000 draws of 3 of 7: mean 2571, standard deviation 38.
    assert all(abs(kept[i] - 6000 * 3 / 7) < 200 for i in range(7))


def test_another_process_aligns_the_same_way(root: Path) -> None:
    code = (
        "from mgrpo_lightning.algorithm.alignment import *;"
        "print(align([3, 0, 12], AlignmentConfig('duplicate_drop', 8), 7).indices)"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert other.stdout.strip() == str(align([3, 0, 12], AlignmentConfig("duplicate_drop", 8), 7).indices)


@pytest.mark.parametrize("slots", [0, -1])
def test_no_slots_is_a_configuration_error(slots: int) -> None:
    with pytest.raises(ConfigurationError, match=f"slots is {slots}"):
        AlignmentConfig(slots=slots)


def test_an_unknown_mode_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="'drop'"):
        AlignmentConfig("drop")  # type: ignore[arg-type]
