"""The learning-rate schedule of one role, as a pure function of its update count."""

from __future__ import annotations

import math

from mgrpo_lightning.roles.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, updates: int, max_updates: int) -> float:
    """Linear warm-up, then constant, linear or cosine to ``final`` times the peak.

    Args:
        config: The role's optimizer block.
        updates: Updates done so far.
        max_updates: Updates of the whole run.
    """
    if updates < config.warmup:
        return config.lr * (updates + 1) / (config.warmup + 1)
    span = max(max_updates - config.warmup - 1, 1)
    progress = min((updates - config.warmup) / span, 1.0)
    if config.decay == "linear":
        return config.lr * (1 - (1 - config.final) * progress)
    if config.decay == "cosine":
        return config.lr * (config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2)
    return config.lr
