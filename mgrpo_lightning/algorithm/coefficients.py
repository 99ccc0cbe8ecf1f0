"""Coefficient c of each trajectory in the loss: its multiplicity divided by its query's sum and the number of queries.

The paper divides by K for main and by K d for a sub-agent, and takes the mean over the queries. The denominators are
fixed here, once, for the whole training step. Q is the number of queries with at least one filled
slot of the role. Other queries are skipped; a query whose advantages are all 0 still counts. K' is a query's number of
rollouts with a filled slot: all K, unless some could not be scored or made no call. The multiplicities of a query then
sum to K' for main (one slot per rollout) and to K' d for a sub-agent, and

    c = multiplicity / (sum of the query's multiplicities) / Q      main: 1 / (K' Q);  sub: multiplicity / (K' d Q)

The coefficients of a step sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence


def coefficients(multiplicities: Sequence[Sequence[float]]) -> list[list[float]]:
    """Compute the coefficient c of each trajectory of a role.

    Args:
        multiplicities: For each of the step's queries, the multiplicities of the role's n trajectories in any order;
            n may differ from query to query. A query without a value above 0 is skipped.

    Returns:
        Coefficients in the same nested lists, 0 in skipped queries.
    """
    totals = [sum(values) for values in multiplicities]
    queries = sum(total > 0 for total in totals)
    return [
        [value / (total * queries) if total > 0 else 0.0 for value in values]
        for values, total in zip(multiplicities, totals, strict=True)
    ]
