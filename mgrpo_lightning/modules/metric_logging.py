"""Log the metrics of a training step: to callbacks at each step, to loggers every ``log_every_n_steps``."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch import LightningModule


def log_step_metrics(module: LightningModule, metrics: Mapping[str, float], *, step: int) -> None:
    """Log the metrics of one step. Call it in a training hook, with the same metrics on every rank.

    Lightning's own logging repeats the last value of a metric in steps that have none. A role that was not called would
    then still show a reward. So loggers are called directly. Callbacks that monitor a metric find its last value in
    ``trainer.callback_metrics``.

    Args:
        metrics: Values by metric name.
        step: Index of the training step, from 0.
    """
    module.log_dict(dict(metrics), batch_size=1, logger=False)
    every: int = module.trainer.log_every_n_steps  # type: ignore[attr-defined]
    if every and (step + 1) % every == 0:
        for logger in module.trainer.loggers:
            logger.log_metrics(dict(metrics), step=step)
            logger.save()
