"""``mgrpo fit``, ``validate``, ``test`` and ``predict`` (LightningCLI): parser, callbacks, checkpoint to start from.

The other commands have their own parsers in ``commands/replay.py``, ``doctor.py``, ``export.py``, ``export_base.py``,
``launch.py``, ``store.py`` and ``view.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from mgrpo_lightning.callbacks import (
    AdapterExport,
    BestCheckpoint,
    CollapseAlarm,
    Distributions,
    GracefulStop,
    Predictions,
    Results,
    RolloutLog,
    RunLockCallback,
    TeamCheckpoint,
    TeamProgress,
)
from mgrpo_lightning.commands.config_files import compose, with_options
from mgrpo_lightning.commands.config_mistakes import TeamFileParser
from mgrpo_lightning.commands.config_numbers import refuse_numbers
from mgrpo_lightning.commands.config_shapes import refuse_shapes
from mgrpo_lightning.commands.dry_run import dry_run
from mgrpo_lightning.commands.quiet import quiet
from mgrpo_lightning.commands.run_config import RunConfig
from mgrpo_lightning.commands.run_links import RunConfigCallback, link_run
from mgrpo_lightning.data.command_context import CommandContext
from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
from mgrpo_lightning.data.resuming import played_settings
from mgrpo_lightning.distributed import strategy
from mgrpo_lightning.distributed.slurm_step import StepEnvironment
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.modules.trainer_keys import refuse_keys, refuse_nothing_asked, refuse_trainer
from mgrpo_lightning.persistence.checkpoints import FILENAME, AtomicCheckpointIO, named_checkpoint, refuse_two_runs
from mgrpo_lightning.persistence.resume_log import key_of
from mgrpo_lightning.process.one_run import one_run
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.store.shared_settings import shared_settings

TRAINER_DEFAULTS = {
    "max_epochs": -1,  # max_steps is the length of a run; a run with a higher max_steps later starts another epoch
    "num_sanity_val_steps": 0,
    "devices": 1,
    "log_every_n_steps": 1,
    "enable_model_summary": False,  # the bases are not submodules, so Lightning's table would be empty
}


CALLBACKS: dict[str, type[Callback]] = {
    "checkpoint": TeamCheckpoint,
    "best": BestCheckpoint,
    "progress": TeamProgress,
    "rollout_log": RolloutLog,
    "alarm": CollapseAlarm,
    "distributions": Distributions,
    "export": AdapterExport,
    "predictions": Predictions,
    "results": Results,
    "stop": GracefulStop,
}
"""Callbacks of every run, by the name of their block in the team file."""
BLOCKS: dict[str, type] = {
    "run": RunConfig,
    "model": TeamModule,
    "data": AlignedTrajectoryDataModule,
    **CALLBACKS,
}
"""Classes of the blocks that have no ``class_path``."""


class MgrpoCLI(LightningCLI):
    """LightningCLI with a run folder, the package's callbacks, atomic checkpoints, and ``predict --question``."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunConfig, "run")
        for name, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)
        parser.set_defaults(
            {
                "checkpoint.filename": FILENAME,
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.every_n_train_steps": 1,
                "checkpoint.enable_version_counter": False,  # a repeated step must replace its damaged checkpoint
            }
        )
        link_run(parser)

    @staticmethod
    @override
    def subcommands() -> dict[str, set[str]]:
        """Return only the subcommand that is called, else all: building one parser takes a quarter of a second."""
        every = LightningCLI.subcommands()
        given = sys.argv[1] if len(sys.argv) > 1 else ""
        return {given: every[given]} if given in every else every

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        subcommand = self.config.get("subcommand")
        config = self.config[subcommand] if subcommand else self.config
        refuse_numbers(config.run, RunConfig, "run")  # first: else the error names the seed's copy in model or data
        refuse_numbers(config, BLOCKS, "")

    @override
    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument("--question", type=str, required=True, help="The question to answer.")
        if subcommand == "fit":
            parser.add_argument(
                "--dry_run",
                action="store_true",
                help="Check the settings without loading weights, print what the run needs, and exit.",
            )
        return parser

    @override
    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        refuse_keys(config)
        folder = config["default_root_dir"]
        self.on_gpu = config["accelerator"] in ("gpu", "cuda")
        if config["accelerator"] == "auto":
            self.on_gpu = torch.cuda.is_available()
        if self._get(self.config, "dry_run", False):  # the run may be for another machine, with other devices
            config |= {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
        if config["logger"] in (None, True):
            config["logger"] = TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False)
        plugins = config["plugins"] or []
        plugins = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        if StepEnvironment.detect() and not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            plugins.append(StepEnvironment())
        config["plugins"] = plugins
        if config["strategy"] == "auto" and (config["devices"], config["num_nodes"]) != (1, 1):
            config["strategy"] = strategy.NAME
        unwanted = () if config["enable_progress_bar"] in (None, True) else (TeamProgress,)
        self.run_lock = RunLockCallback()
        # RunLockCallback is first, so that it checks the lock before another callback writes.
        wanted = [self.run_lock, *(callback for callback in callbacks if not isinstance(callback, unwanted))]
        return super()._instantiate_trainer(config, wanted)

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        self.datamodule.command = CommandContext(shared=shared_settings(self.config[subcommand].as_dict()))
        try:
            super()._run_subcommand(subcommand)
        finally:
            self.run_lock.release()  # only now: after_validate still changes files in the folder

    @override
    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        self.run_lock.take(self.trainer, subcommand)  # before looking for a checkpoint: no other process writes now
        if "ckpt_path" in kwargs:
            kwargs["ckpt_path"] = checkpoint_to_start(self.trainer, subcommand, kwargs["ckpt_path"])
        return kwargs

    def before_fit(self) -> None:
        """With ``--dry_run``, check and print instead of training."""
        if self._get(self.config_init, "dry_run"):
            refuse_trainer(self.trainer)
            checkpoint_to_start(self.trainer, "fit", self._get(self.config_init, "ckpt_path"))
            dry_run(self.model, self.datamodule, on_gpu=self.on_gpu, steps=self.trainer.max_steps)
            raise SystemExit(0)

    def before_validate(self) -> None:
        """Give the data module the task's settings, the key of the resume log, so that a killed command can resume."""
        refuse_nothing_asked(self.trainer, self.subcommand)
        task = self._get(self.config, "data.task")
        settings = None if task is None else key_of(played_settings(task.as_dict()))
        self.datamodule.command = replace(self.datamodule.command, settings=settings)

    def after_validate(self) -> None:
        """Remove the resume log, unless some answers are undecided: then a repeated command asks only for those."""
        undecided = self.model.validation_results[-1]["undecided"]
        if not undecided:
            self.datamodule.resume_logs.remove_finished()
        else:
            kept = self.datamodule.command.settings is not None and self.datamodule.schedule == "eager"
            rank_zero_warn(
                f"{undecided} answers are undecided and are not counted. Run the command again when the failed service "
                f"answers{': the other answers are kept and not asked for again' if kept else ''}."
            )

    before_test, after_test = before_validate, after_validate

    def before_predict(self) -> None:
        """Pass the command line's ``--question`` to the data module."""
        text = self._get(self.config_init, "question")
        questions = [Question(id="asked", text=text, answers=())]
        self.datamodule.command = replace(self.datamodule.command, questions=questions)

    def predict(self, **kwargs: Any) -> None:
        """Print the team's tree of turns, calls and pages, and its answer.

        Args:
            **kwargs: Arguments of Lightning's ``Trainer.predict``.
        """
        for trees in self.trainer.predict(**kwargs) or []:
            print("\n\n".join(str(tree) for tree in trees))


def checkpoint_to_start(trainer: Trainer, subcommand: str, path: str | None) -> str | None:
    """Resolve ``--ckpt_path``; see ``named_checkpoint``.

    Args:
        trainer: Trainer whose ``default_root_dir`` is the run folder.
        subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
        path: The option's value.

    Raises:
        ConfigurationError: A fit would start where another run has left checkpoints.
        DataError: No checkpoint loads.
    """
    run = Path(trainer.default_root_dir)
    start = named_checkpoint(run, path)
    if subcommand == "fit":
        refuse_two_runs(run / "checkpoints", start)
    return None if start is None else str(start)


@one_run()
def make_cli(args: Sequence[str] | None = None, *, run: bool = True) -> MgrpoCLI:
    """Parse a command line and, with ``run``, execute its subcommand.

    Args:
        args: Command line without the program's name; None reads ``sys.argv``.
        run: False only makes the model, data module and trainer (for other commands, tests and benchmarks).

    Raises:
        ConfigurationError: A setting is wrong, or another thread of this process already has a run.
    """
    quiet()
    # Written back to sys.argv: Lightning starts other ranks with it, and they must get the same merged config.
    sys.argv[1:] = compose(sys.argv[1:] if args is None else args)
    blocks = {**BLOCKS, "trainer": Trainer}
    refuse_shapes(with_options(sys.argv[1:], blocks), blocks)
    return MgrpoCLI(
        TeamModule,
        AlignedTrajectoryDataModule,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        save_config_callback=RunConfigCallback,
        save_config_kwargs={"save_to_log_dir": False},
        trainer_defaults=TRAINER_DEFAULTS,
        parser_class=TeamFileParser,
        parser_kwargs={"parser_mode": "yaml"},  # not omegaconf: we resolve references, and skip those in users' texts
        run=run,
    )
