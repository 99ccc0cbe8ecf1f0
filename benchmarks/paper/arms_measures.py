"""Measures of recorded arms: accuracy, paired test, rollouts to a bar, deepest drop, spikes, cost of a right answer."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.paper.arms import ARMS
from benchmarks.paper.paired import sign_flip
from benchmarks.pictures import smoothed

Record = Mapping[str, Any]
"""See ``arms_record.record``."""
SPIKE = 3.0
"""Times a run's median gradient norm."""


def by_arm(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records by arm, in the order of ``ARMS`` and of their seeds.

    Args:
        records: Of any arms and seeds.
    """
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for one in records:
        found[one["arm"]].append(one)
    asked = {one["questions"] for several in found.values() for one in several}
    assert len(asked) <= 1, "the records are of different held-out questions"
    return {arm: sorted(found[arm], key=lambda one: one["seed"]) for arm in ARMS if arm in found}


def share(record: Record, which: int, kept: Sequence[int] | None = None) -> float:
    """Share of right answers in a validation.

    Args:
        record: Of a run.
        which: Index of the validation.
        kept: Indices of the questions that count; None: all.
    """
    right = record["validations"][which]["right"]
    return statistics.fmean(int(right[i]) for i in (range(len(right)) if kept is None else kept))


def p_value(records: Sequence[Record], others: Sequence[Record]) -> float:
    """Of the paired test of two arms at their ends.

    Args:
        records: Of one arm.
        others: Of the other.
    """
    theirs = {one["seed"]: one["validations"][-1]["right"] for one in others}
    pairs = [(one["validations"][-1]["right"], theirs[one["seed"]]) for one in records if one["seed"] in theirs]
    return sign_flip([sum(int(a[i]) - int(b[i]) for a, b in pairs) for i in range(len(pairs[0][0]))]) if pairs else 1.0


def rollouts_until(records: Sequence[Record], bar: float) -> float | None:
    """Training rollouts until the mean accuracy reaches a bar, None if it never does.

    Args:
        records: Of one arm.
        bar: Accuracy.
    """
    points = [
        (one["step"] * records[0]["rollouts_per_step"], statistics.fmean(share(record, i) for record in records))
        for i, one in enumerate(records[0]["validations"])
    ]
    if points[0][1] >= bar:
        return 0.0
    for (start, low), (end, high) in pairwise(points):
        if high >= bar:
            return float(start + (end - start) * (bar - low) / (high - low))
    return None


def deepest_drop(values: Sequence[float]) -> float:
    """How far a curve falls below its best so far.

    Args:
        values: Of the steps.
    """
    smooth, best, drop = smoothed(values), 0.0, 0.0
    for value in smooth:
        best = max(best, value)
        drop = max(drop, best - value)
    return drop


def spikes(record: Record) -> int:
    """Steps with a gradient norm far above the run's median, of any role.

    Args:
        record: Of a run.
    """
    norms = record["steps"]["grad_norm"].values()
    return sum(value > SPIKE * statistics.median(values) for values in norms for value in values)


def for_a_right_answer(records: Sequence[Record], name: str) -> float:
    """Turns, tokens or seconds of all held-out rollouts at the end, by right answers.

    Args:
        records: Of one arm.
        name: Which of them.
    """
    ends = [one["validations"][-1] for one in records]
    right = sum(str(one["right"]).count("1") for one in ends)
    return float(sum(one[name] for one in ends)) / max(right, 1)
