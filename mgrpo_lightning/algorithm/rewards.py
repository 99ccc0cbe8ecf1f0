"""Reward of one trajectory (eq. 4 and 5): 0 with an invalid format, else the weighted sum of its components.

    main  R_M = 0.1 format + 0.9 correct                             (the paper's weights)
    sub   R_S = 0.1 format + 0.4 correct_main + 0.5 expert

A component that could not be decided (a judge that failed) has no value. The caller marks such a trajectory as failed.
It leaves its group before mean and std, and is never scored as wrong.
"""

from __future__ import annotations

from mgrpo_lightning.algorithm.config import RewardConfig


def reward(
    config: RewardConfig, *, valid: bool, correct: float = 0.0, correct_main: float = 0.0, expert: float = 0.0
) -> float:
    """Return R of a trajectory of any role: eq. 4 or eq. 5, by the weights.

    Args:
        config: Weights of the components.
        valid: Whether the format is valid; the format component is then 1.
        correct: Correctness of the trajectory's own answer, in [0, 1].
        correct_main: For a sub trajectory, the correctness of main in the same rollout, in [0, 1]. The paper leaves
            open its value if main's format is invalid: give 0 then, as in main's own reward.
        expert: How well the subtask was solved, in [0, 1].

    Returns:
        R, in [0, the sum of the weights]; the paper's weights sum to 1.
    """
    components = (correct, correct_main, expert)
    assert all(0 <= value <= 1 for value in components), f"reward components outside [0, 1]: {components}"
    if not valid:
        return 0.0
    return config.format + config.correct * correct + config.correct_main * correct_main + config.expert * expert
