"""Agreement: count how often judge and rule agree about answers; agreement rates and Cohen's kappa."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

CASES = ((True, True), (True, False), (False, True), (False, False))
"""(rule, judge) verdicts, in the order of the counts that ``Agreement.take`` returns."""


class Agreement:
    """Counts of answers that both a rule and a judge have decided.

    Args:
        audit: Share of the rule's matches for which the judge is asked too; each counts with weight 1 / audit.
    """

    def __init__(self, audit: float = 1.0) -> None:
        self._audit = audit
        self._counts = Counter[tuple[bool, bool]]()

    def add(self, rule: bool, judge: bool) -> None:
        """Count one answer.

        Args:
            rule: Whether the rule matched.
            judge: Whether the judge called it right.
        """
        self._counts[rule, judge] += 1

    @property
    def counts(self) -> list[float]:
        """The number of judged answers since the last ``take``, then the weighted counts by ``CASES``."""
        counts = self._counts
        # Dividing by audit = 0 cannot happen: without an audit, no match is ever counted.
        stood_for = [counts[case] / self._audit if case[0] and counts[case] else counts[case] for case in CASES]
        return [counts.total(), *stood_for]

    def take(self) -> list[float]:
        """Return ``counts``, and start again."""
        counts, self._counts = self.counts, Counter()
        return counts


def agreement_figures(counts: Sequence[float]) -> dict[str, float]:
    """Compute the metrics of a table from the counts; empty if the judge decided no answer.

    Args:
        counts: Counts from ``Agreement.take``, possibly summed over ranks.

    Returns:
        ``judged``: number of answers that the judge decided. ``unmatched_right``: share of answers without a rule match
        that the judge calls right. If matches were audited, also ``agreement``: share of answers with the same verdict;
        ``judge_only`` and ``rule_only``: shares that only one of them calls right; ``kappa``: Cohen's kappa (agreement
        beyond chance), left out if agreement by chance is 1.
    """
    judged, *stood_for = counts
    if not judged:
        return {}
    total = sum(stood_for)
    both, rule_only, judge_only, neither = (count / total for count in stood_for)
    metrics = {"judged": float(judged)}
    if unmatched := judge_only + neither:
        metrics["unmatched_right"] = judge_only / unmatched
    rule, judge = both + rule_only, both + judge_only
    if not rule:  # no audited match: with unmatched answers only, agreement would mean nothing
        return metrics
    same, by_chance = both + neither, rule * judge + (1 - rule) * (1 - judge)
    metrics |= {"agreement": same, "judge_only": judge_only, "rule_only": rule_only}
    return metrics | ({"kappa": (same - by_chance) / (1 - by_chance)} if by_chance < 1 else {})
