"""Give a trainer that a user made the callbacks of a run: journal, checkpoints, exports, tables and the lock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary, RichProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.rich_model_summary import RichModelSummary
from lightning.pytorch.loggers import Logger

from mgrpo_lightning.commands.fit import MgrpoCLI
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.persistence.checkpoints import AtomicCheckpointIO

REPLACED = (ModelCheckpoint, ModelSummary, RichModelSummary, RichProgressBar, TQDMProgressBar)
"""Callbacks that Lightning adds to a trainer by itself. Those of this package take their place."""


def equip(trainer: Trainer, cli: MgrpoCLI, callbacks: Sequence[Callback] = (), logger: Logger | None = None) -> None:
    """Add what a run needs to a trainer; a second call adds nothing twice.

    Args:
        trainer: The user's trainer, or that of the team file.
        cli: What the team file made; its trainer has the package's callbacks.
        callbacks: More callbacks of the user.
        logger: Logger of the run; None: the trainer's own.

    Raises:
        ConfigurationError: The trainer writes into another folder than the run's.
    """
    if logger is not None:
        trainer.loggers = [logger]
    own = cli.trainer
    if trainer is not own:
        if Path(trainer.default_root_dir).absolute() != Path(own.default_root_dir):
            raise ConfigurationError(
                f"the trainer writes into {trainer.default_root_dir}, but the run folder is {own.default_root_dir}.",
                hint="make the trainer with default_root_dir=team.folder, or load the team with other settings for "
                "run.root and run.name.",
            )
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    theirs = [callback for callback in _callbacks(trainer) if trainer is own or type(callback) not in REPLACED]
    kinds = {type(callback) for callback in theirs}
    given = [callback for callback in callbacks if callback not in theirs]
    everything = [*(callback for callback in _callbacks(own) if type(callback) not in kinds), *theirs, *given]
    # Lightning's order: a checkpoint keeps the state that all other callbacks have reached. The lock is first already.
    _set_callbacks(trainer, sorted(everything, key=lambda callback: isinstance(callback, ModelCheckpoint)))


def _callbacks(trainer: Trainer) -> list[Callback]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]


def _set_callbacks(trainer: Trainer, callbacks: list[Callback]) -> None:
    trainer.callbacks = callbacks  # type: ignore[attr-defined]
