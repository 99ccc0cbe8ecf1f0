"""Distributions: TensorBoard histograms of advantages and log ratios, and the run's settings for every logger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from typing_extensions import override

from mgrpo_lightning.ranges import Count, ranged

if TYPE_CHECKING:
    from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
    from mgrpo_lightning.modules.team import TeamModule

OUTCOMES = ("exact_match", "f1", "accuracy", "delegations_per_rollout", "calls_per_rollout", "tokens_per_rollout")
"""Metrics of the last validation that TensorBoard's hyperparameter table shows."""


@ranged("distributions")
class Distributions(Callback):
    """Logs histograms of advantages and log ratios by role to TensorBoard, and the run's settings to every logger.

    TensorBoard gets the settings at the end, with the run's results; other loggers get them at the start.

    Args:
        every_n_steps: Training steps between two histograms.
    """

    def __init__(self, every_n_steps: Count = 1) -> None:
        self.every_n_steps = every_n_steps

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast("TeamModule", pl_module)
        data: AlignedTrajectoryDataModule = trainer.datamodule  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            # MLflow refuses to change a setting of a run, and a resumed run may have other settings.
            resumed = isinstance(logger, MLFlowLogger) and module.num_steps > 0
            if not isinstance(logger, TensorBoardLogger) and not resumed:
                logger.log_hyperparams(settings(module, data))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch.step % self.every_n_steps:
            return
        module = cast("TeamModule", pl_module)
        for logger in _loggers(trainer):
            for role, aligned in batch.played.items():
                if aligned.rows:
                    # By key: the segments of a trajectory are rows with one advantage.
                    values = torch.tensor(list({row.key: row.advantage for row in aligned.rows}.values()))
                    logger.experiment.add_histogram(f"{role}/advantages", values, batch.step)
                if ratios := list(module.role_module(role).log_ratios.values()):
                    logger.experiment.add_histogram(f"{role}/log_ratios", torch.cat(ratios), batch.step)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast("TeamModule", pl_module)
        if not module.validation_results:
            return
        last = module.validation_results[-1]
        outcomes = {f"outcome/{name}": float(last[name]) for name in OUTCOMES if last.get(name) is not None}
        data: AlignedTrajectoryDataModule = trainer.datamodule  # type: ignore[attr-defined]
        for logger in _loggers(trainer):
            logger.log_hyperparams(settings(module, data), outcomes)


def settings(module: TeamModule, data: AlignedTrajectoryDataModule) -> dict[str, Any]:
    """Return the settings that distinguish runs, flat: ``main/optimizer/lr``, ``rollouts_per_query``."""
    run = {name: getattr(module, name) for name in ("quantization", "dense_copy", "token_budget", "seed")}
    play = {name: getattr(data, name) for name in ("queries_per_step", "rollouts_per_query", "schedule", "source")}
    roles = {name: asdict(role) for name, role in module.roles.items()}
    return dict(_flat({**run, **play, "alignment": asdict(data.alignment), **roles}))


def _flat(values: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{name}/")
        else:
            # TensorBoard's hyperparameters accept only these types.
            yield f"{head}{name}", value if isinstance(value, bool | int | float | str) else str(value)


def _loggers(trainer: Trainer) -> list[TensorBoardLogger]:
    if not trainer.is_global_zero:
        return []
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
