"""What a training step says of itself, to loggers and to whoever monitors it."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch import LightningModule


def log_figures(module: LightningModule, figures: Mapping[str, float], *, step: int) -> None:
    """Log figures of one step.

    Lightning's own way to loggers repeats a figure in every step that has none of that name, so a role that was not
    called would have a reward. Callbacks that monitor one find the last value in ``trainer.callback_metrics``.

    Args:
        module: In a training hook; the same figures on every rank.
        figures: By name.
        step: Index of the training step, from 0.
    """
    module.log_dict(dict(figures), batch_size=1, logger=False)
    every: int = module.trainer.log_every_n_steps  # type: ignore[attr-defined]
    if every and (step + 1) % every == 0:
        for logger in module.trainer.loggers:
            logger.log_metrics(dict(figures), step=step)
            logger.save()
