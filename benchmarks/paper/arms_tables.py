"""Tables of the arms that are recorded; ``python -m benchmarks.report paper/arms`` prints them.

All arms answer the same held-out questions. The paired test is of an arm beside one of them: exact, two-sided, a
question being one unit with the sum of its differences over the seeds that both arms have.

- Rollouts to main-only's end: training rollouts after which the mean held-out accuracy of the seeds has first reached
  the one with which ``main_only`` ends, on straight lines between validations.
- Deepest drop: how far the training success, a mean of 3 steps, falls below its own best so far; the worst seed.
- Spikes: steps whose gradient norm is above 3 times the run's median, of any role.
- For a right answer: turns, tokens and seconds of all held-out rollouts at the end, divided by the right answers.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.paper.arms_measures import (
    Record,
    deepest_drop,
    for_a_right_answer,
    p_value,
    rollouts_until,
    share,
    spikes,
)
from benchmarks.tables import markdown
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.factbook.world import load_world
from mgrpo_lightning.tools.corpus_visit import Document

BAR = "main_only"
"""Whose end the others' rollouts are counted to."""
FEW = 3
"""Parts of the questions by the length of what has to be read."""
COSTS = {"turns": 1, "tokens": 0, "seconds": 2}
"""Digits shown."""


def accuracy_table(found: Mapping[str, Sequence[Record]], beside: str) -> str:
    """Held-out accuracy before and after the second stage, with the paired test.

    Args:
        found: From ``by_arm``.
        beside: The arm that the others are tested against; nothing is tested before it is recorded.
    """

    def line(arm: str, records: Sequence[Record]) -> Sequence[str]:
        after = [share(one, -1) for one in records]
        p = f"{p_value(records, found[beside]):.2g}" if arm != beside and beside in found else "-"
        before = statistics.fmean(share(one, 0) for one in records)
        middle, ends = statistics.fmean(after), f"{min(after):.1%} to {max(after):.1%}"
        return str(len(records)), f"{before:.1%}", f"{middle:.1%}", ends, p

    columns = ("arm", "seeds", "before", "after", "of the seeds", f"p beside {beside}")
    return markdown(columns, ((arm, *line(arm, records)) for arm, records in found.items()))


def parts_table(found: Mapping[str, Sequence[Record]], questions: Sequence[Question]) -> str:
    """Accuracy at the end by number of hops, and by the length of what has to be read.

    Args:
        found: From ``by_arm``.
        questions: The held-out questions, in their order.
    """
    parts = {level: [i for i, q in enumerate(questions) if q.level == level] for level in _levels(questions)}
    lengths = [read_length(question) for question in questions]
    order = sorted(range(len(questions)), key=lengths.__getitem__)
    for part in range(FEW):
        kept = order[part * len(order) // FEW : (part + 1) * len(order) // FEW]
        parts[f"{lengths[kept[0]]:,} to {lengths[kept[-1]]:,} characters"] = kept

    def line(records: Sequence[Record]) -> Sequence[str]:
        return [f"{statistics.fmean(share(one, -1, kept) for one in records):.1%}" for kept in parts.values()]

    return markdown(("arm", *parts), ((arm, *line(records)) for arm, records in found.items()))


def read_length(question: Question) -> int:
    """Characters of the sections that the gold path reads.

    Args:
        question: Of the Factbook.
    """
    total = 0
    for hop in question.evidence:
        page = load_world()[hop.url]
        total += len(Document(page.title, page.passages).read(hop.section.partition(": ")[2]))
    return total


def stability_table(found: Mapping[str, Sequence[Record]]) -> str:
    """Sample efficiency, stability, and what a right answer costs.

    Args:
        found: From ``by_arm``.
    """
    bar = statistics.fmean(share(one, -1) for one in found[BAR]) if BAR in found else None

    def line(records: Sequence[Record]) -> Sequence[str]:
        reached = None if bar is None else rollouts_until(records, bar)
        after = [share(one, -1) for one in records]
        zero = [v for one in records for values in one["steps"]["zero_advantage_groups"].values() for v in values]
        return (
            "-" if reached is None else f"{reached:,.0f}",
            f"{statistics.stdev(after):.3f}" if len(after) > 1 else "-",
            f"{max(deepest_drop(one['steps']['correct']) for one in records):.3f}",
            f"{statistics.fmean(zero):.0%}",
            f"{statistics.fmean(spikes(one) for one in records):.1f}",
            *(f"{for_a_right_answer(records, key):,.{digits}f}" for key, digits in COSTS.items()),
        )

    names = ("std of the seeds", "deepest drop", "zero-advantage groups", "spikes")
    costs = (f"{name} for a right answer" for name in COSTS)
    columns = ("arm", f"rollouts to {BAR}'s end, interpolated", *names, *costs)
    return markdown(columns, ((arm, *line(records)) for arm, records in found.items()))


def _levels(questions: Sequence[Question]) -> list[str]:
    return sorted({question.level for question in questions})
