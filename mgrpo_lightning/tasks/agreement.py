"""How often a judge and a rule say the same of an answer; where they part, one of the two needs a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

CASES = ((True, True), (True, False), (False, True), (False, False))
"""What rule and judge said, in the order of the counts."""


class Agreement:
    """Counts of answers that both a rule and a judge have decided.

    Args:
        audit: Share of the rule's matches about which the judge is asked; one that is counted stands for 1 / audit.
    """

    def __init__(self, audit: float = 1.0) -> None:
        self._audit = audit
        self._counts = Counter[tuple[bool, bool]]()

    def add(self, rule: bool, judge: bool) -> None:
        """One answer.

        Args:
            rule: What the rule said.
            judge: What the judge said.
        """
        self._counts[rule, judge] += 1

    def take(self) -> list[float]:
        """How many answers the judge decided since the last time, then all for which they stand by ``CASES``."""
        counts, self._counts = self._counts, Counter()
        # Without an audit there is no match to count.
        stood_for = [counts[case] / self._audit if case[0] and counts[case] else counts[case] for case in CASES]
        return [counts.total(), *stood_for]


def agreement_figures(counts: Sequence[float]) -> dict[str, float]:
    """What a table shows of the counts; nothing where no answer was decided by both.

    Args:
        counts: From ``Agreement.take``, maybe of all ranks together.

    Returns:
        ``judged``: answers that the judge decided; ``unmatched_right``: of those that the rule does not match, the
        share that the judge calls right. Where matches were audited also ``agreement``: share of all answers of which
        both say the same; ``judge_only`` and ``rule_only``: shares that one of them alone calls right; ``kappa``:
        Cohen's, agreement beyond chance, left out where chance leaves no room for it.
    """
    judged, *stood_for = counts
    if not judged:
        return {}
    total = sum(stood_for)
    both, rule_only, judge_only, neither = (count / total for count in stood_for)
    figures = {"judged": float(judged)}
    if unmatched := judge_only + neither:
        figures["unmatched_right"] = judge_only / unmatched
    rule, judge = both + rule_only, both + judge_only
    if not rule:  # of the answers of one side alone there is no agreement
        return figures
    same, by_chance = both + neither, rule * judge + (1 - rule) * (1 - judge)
    figures |= {"agreement": same, "judge_only": judge_only, "rule_only": rule_only}
    return figures | ({"kappa": (same - by_chance) / (1 - by_chance)} if by_chance < 1 else {})
