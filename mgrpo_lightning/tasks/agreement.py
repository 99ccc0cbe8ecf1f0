"""How often a judge and a rule say the same of an answer; where they part, one of the two needs a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

CASES = ((True, True), (True, False), (False, True), (False, False))
"""What rule and judge said, in the order of the counts."""


class Agreement:
    """Counts of answers that both a rule and a judge have decided."""

    def __init__(self) -> None:
        self._counts = Counter[tuple[bool, bool]]()

    def add(self, rule: bool, judge: bool) -> None:
        """One answer.

        Args:
            rule: What the rule said.
            judge: What the judge said.
        """
        self._counts[rule, judge] += 1

    def take(self) -> list[int]:
        """The counts since the last time, in the order of ``CASES``."""
        counts = [self._counts[case] for case in CASES]
        self._counts.clear()
        return counts


def agreement_figures(counts: Sequence[float]) -> dict[str, float]:
    """What a table shows of the counts; nothing where no answer was decided by both.

    Args:
        counts: From ``Agreement.take``, maybe of all ranks together.

    Returns:
        ``judged``: answers; ``agreement``: share of which both say the same; ``judge_only`` and ``rule_only``: shares
        that one of them alone calls right; ``kappa``: Cohen's, agreement beyond chance, left out where chance leaves
        no room for it.
    """
    total = sum(counts)
    if not total:
        return {}
    both, rule_only, judge_only, neither = (count / total for count in counts)
    rule, judge = both + rule_only, both + judge_only
    same, by_chance = both + neither, rule * judge + (1 - rule) * (1 - judge)
    figures = {"judged": float(total), "agreement": same, "judge_only": judge_only, "rule_only": rule_only}
    return figures | ({"kappa": (same - by_chance) / (1 - by_chance)} if by_chance < 1 else {})
