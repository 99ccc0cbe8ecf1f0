"""Reward of one trajectory (eq. 4 and 5): 0 with an invalid format, else the weighted sum of its parts.

    main  R_M = 0.1 format + 0.9 correct                             (the paper's weights)
    sub   R_S = 0.1 format + 0.4 correct_main + 0.5 expert

A user may add functions, each with a weight. Their weighted values are added to the sum.

A part that could not be decided (a judge that failed) has no value. The caller marks such a trajectory as failed.
It leaves its group before mean and std, and is never scored as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from mgrpo_lightning.algorithm.config import RewardConfig


def reward(
    config: RewardConfig,
    *,
    valid: bool,
    correct: float = 0.0,
    correct_main: float = 0.0,
    expert: float = 0.0,
    functions: Mapping[str, float] = {},
) -> float:
    """Return R of a trajectory of any role: eq. 4 or eq. 5, by the weights.

    Args:
        config: Weights of the components and of the user's functions.
        valid: Whether the format is valid; the format component is then 1.
        correct: Correctness of the trajectory's own answer, in [0, 1].
        correct_main: For a sub trajectory, the correctness of main in the same rollout, in [0, 1]. The paper leaves
            open its value if main's format is invalid: give 0 then, as in main's own reward.
        expert: How well the subtask was solved, in [0, 1].
        functions: Values of the user's functions by name, in [0, 1]; it must hold every function with a weight.

    Returns:
        R, in [0, the sum of the weights]; the paper's weights sum to 1.
    """
    values = (correct, correct_main, expert, *functions.values())
    assert all(0 <= value <= 1 for value in values), f"reward components outside [0, 1]: {values}"
    if not valid:
        return 0.0
    total = config.format + config.correct * correct + config.correct_main * correct_main + config.expert * expert
    # In the order of the names, so that the floating-point sum does not depend on the order in the team file.
    for name in sorted(config.functions):
        if weight := config.functions[name].weight:
            total += weight * functions[name]
    return total
