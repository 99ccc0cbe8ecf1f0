"""Whose business number formats are: the bases compute in ``compute_dtype``, whatever plays and whatever trains."""

from __future__ import annotations

from lightning.pytorch import Trainer

from mgrpo_lightning.errors import ConfigurationError


def refuse_trainers_precision(trainer: Trainer) -> None:
    """Keep Lightning from computing updates in another type than turns were sampled in, or from scaling the loss.

    Args:
        trainer: Of the run.

    Raises:
        ConfigurationError: Its precision is not the default.
    """
    if trainer.precision != "32-true":
        raise ConfigurationError(
            f"trainer.precision is {trainer.precision!r}, which would change updates and not the sampling.",
            hint="leave it out, and choose model.init_args.compute_dtype: float32 or bfloat16.",
        )
