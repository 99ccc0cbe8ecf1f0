"""Learning rate of a role by its own update count: linear warm-up, then constant, linear or cosine decay."""

from __future__ import annotations

import math

from mgrpo_lightning.roles.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, updates: int, max_updates: int) -> float:
    """Return the learning rate: linear warm-up, then constant, linear or cosine decay to ``final`` times the peak.

    Args:
        config: The role's optimizer block.
        updates: Number of updates done so far.
        max_updates: Number of updates in the whole run.
    """
    if updates < config.warmup:
        # Plus 1, so that the first update has a positive rate and the first update after the warm-up has the peak.
        return config.lr * (updates + 1) / (config.warmup + 1)
    # Minus 1, so that the last update of the run has exactly the final rate.
    span = max(max_updates - config.warmup - 1, 1)
    progress = min((updates - config.warmup) / span, 1.0)
    if config.decay == "linear":
        return config.lr * (1 - (1 - config.final) * progress)
    if config.decay == "cosine":
        return config.lr * (config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2)
    return config.lr
