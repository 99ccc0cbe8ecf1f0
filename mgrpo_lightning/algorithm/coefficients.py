"""What each trajectory weighs in the objective of one optimizer step (the sums of eq. 14 and 17).

The denominators are fixed here, once, by what the whole optimizer step contains. Q is the number of its queries with at
least one filled slot of the role; the others are skipped, while a query whose advantages are all 0 still counts. Of
each such query, K' is the number of rollouts with a filled slot: all K of them, unless some could not be scored or made
no call. Its multiplicities then sum to K' for main (one slot a rollout) and to K' d for a sub-agent, and

    c = multiplicity / (sum of the query's multiplicities) / Q      main: 1 / (K' Q);  sub: multiplicity / (K' d Q)

The coefficients of a step sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence


def coefficients(multiplicities: Sequence[Sequence[float]]) -> list[list[float]]:
    """Coefficient c of each trajectory of a role.

    Args:
        multiplicities: For each query, the multiplicities of its trajectories in any order; none above 0 skips it.

    Returns:
        Numbers of the same shape, 0 in skipped queries.
    """
    totals = [sum(values) for values in multiplicities]
    queries = sum(total > 0 for total in totals)
    return [
        [value / (total * queries) if total > 0 else 0.0 for value in values]
        for values, total in zip(multiplicities, totals, strict=True)
    ]
