"""The command ``mgrpo``: fit, validate, test and predict through LightningCLI, with one folder for all a run writes.

``mgrpo replay``, ``doctor``, ``launch``, ``store`` and ``view`` have parsers of their own: see ``commands/replay.py``,
``commands/doctor.py``, ``commands/launch.py``, ``commands/store.py`` and ``commands/view.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
    CollapseAlarm,
    Distributions,
    GracefulStop,
    OneWriter,
    Predictions,
    Results,
    RolloutLog,
    TeamCheckpoint,
    TeamProgress,
)
from mgrpo_lightning.commands.config_files import compose
from mgrpo_lightning.commands.config_mistakes import TeamFileParser
from mgrpo_lightning.commands.config_numbers import refuse_numbers
from mgrpo_lightning.commands.dry_run import dry_run
from mgrpo_lightning.commands.quiet import quiet
from mgrpo_lightning.commands.run_config import RunConfig
from mgrpo_lightning.commands.run_links import RunConfigCallback, link_run
from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
from mgrpo_lightning.data.resuming import played_settings, remove_finished
from mgrpo_lightning.distributed import strategy
from mgrpo_lightning.distributed.slurm import StepEnvironment
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.modules.trainer_keys import refuse_keys, refuse_nothing_asked, refuse_trainer
from mgrpo_lightning.persistence.checkpoints import FILENAME, AtomicCheckpointIO, last_checkpoint, refuse_two_runs
from mgrpo_lightning.persistence.resume_log import key_of
from mgrpo_lightning.process.one_run import one_run
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.store.shared_settings import shared_settings

TRAINER_DEFAULTS = {
    "max_epochs": -1,  # the length of a run is max_steps; one that is extended later starts another epoch
    "num_sanity_val_steps": 0,
    "devices": 1,
    "log_every_n_steps": 1,
    "enable_model_summary": False,  # the bases are no submodules, so Lightning's table would be empty
}


CALLBACKS: dict[str, type[Callback]] = {
    "checkpoint": TeamCheckpoint,
    "progress": TeamProgress,
    "rollout_log": RolloutLog,
    "alarm": CollapseAlarm,
    "distributions": Distributions,
    "export": AdapterExport,
    "predictions": Predictions,
    "results": Results,
    "stop": GracefulStop,
}
"""Of every run, by their blocks of the team file."""
BLOCKS: dict[str, type] = {"run": RunConfig, **CALLBACKS}
"""What the blocks are that name no class."""


class MgrpoCLI(LightningCLI):
    """LightningCLI with a run folder, the package's callbacks, atomic checkpoints and questions on the command line."""

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
                "checkpoint.enable_version_counter": False,  # a step that is done again replaces its damaged file
            }
        )
        link_run(parser)

    @staticmethod
    @override
    def subcommands() -> dict[str, set[str]]:
        """The one that the command line begins with, or all: the parser of each takes a quarter of a second to make."""
        every = LightningCLI.subcommands()
        given = sys.argv[1] if len(sys.argv) > 1 else ""
        return {given: every[given]} if given in every else every

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        subcommand = self.config.get("subcommand")
        config = self.config[subcommand] if subcommand else self.config
        refuse_numbers(config.run, RunConfig, "run")  # first, as model and data have its seed too
        refuse_numbers(config, BLOCKS, "")

    @override
    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument("--question", type=str, required=True, help="The question to answer.")
        if subcommand == "fit":
            parser.add_argument(
                "--dry_run", action="store_true", help="Check everything, print what the run needs, and exit."
            )
        return parser

    @override
    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        refuse_keys(config)
        folder = config["default_root_dir"]
        self.on_gpu = config["accelerator"] in ("gpu", "cuda")
        if config["accelerator"] == "auto":
            self.on_gpu = torch.cuda.is_available()
        if self._get(self.config, "dry_run", False):  # of a run on another machine, too
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
        self.one_writer = OneWriter()
        wanted = [self.one_writer, *(callback for callback in callbacks if not isinstance(callback, unwanted))]
        return super()._instantiate_trainer(config, wanted)

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        self.datamodule.shared = shared_settings(self.config[subcommand].as_dict())
        try:
            super()._run_subcommand(subcommand)
        finally:
            self.one_writer.release()  # behind what comes after the trainer's own end

    @override
    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        self.one_writer.take(self.trainer, subcommand)  # first: the folder holds still from here on
        if "ckpt_path" in kwargs:
            kwargs["ckpt_path"] = self._start(subcommand, kwargs["ckpt_path"])
        return kwargs

    def _start(self, subcommand: str, path: str | None) -> str | None:
        """The checkpoint that a command goes on from; of a fit, the last one of the run in its folder, if any."""
        folder = Path(self.trainer.default_root_dir) / "checkpoints"
        start = last_checkpoint(folder) if path == "last" else None if path is None else Path(path)
        if subcommand == "fit":
            refuse_two_runs(folder, start)
        return None if start is None else str(start)

    def before_fit(self) -> None:
        """With ``--dry_run``, check and print instead of training."""
        if self._get(self.config_init, "dry_run"):
            refuse_trainer(self.trainer)
            self._start("fit", self._get(self.config_init, "ckpt_path"))
            dry_run(self.model, self.datamodule, on_gpu=self.on_gpu, steps=self.trainer.max_steps)
            raise SystemExit(0)

    def before_validate(self) -> None:
        """Tell the data module what is validated, so that a killed command can be given again and goes on."""
        refuse_nothing_asked(self.trainer, self.subcommand)
        task = self._get(self.config, "data.init_args.task")
        self.datamodule.settings = None if task is None else key_of(played_settings(task.as_dict()))

    def after_validate(self) -> None:
        """Nothing is left to go on with, unless somebody who could not decide an answer is to be asked again."""
        undecided = self.model.validation_results[-1]["undecided"]
        if not undecided:
            remove_finished(self.datamodule)
        else:
            kept = self.datamodule.settings is not None and self.datamodule.schedule == "eager"
            rank_zero_warn(
                f"{undecided} answers could not be decided and count for nothing. Give the command again when whoever "
                f"could not be asked can be{': what was played is kept, and only they are asked' if kept else ''}."
            )

    before_test, after_test = before_validate, after_validate

    def before_predict(self) -> None:
        """Hand the question of the command line to the data module."""
        text = self._get(self.config_init, "question")
        self.datamodule.asked = [Question(id="asked", text=text, answers=())]

    def predict(self, **kwargs: Any) -> None:
        """Print the team's tree of turns, calls and pages, and its answer.

        Args:
            **kwargs: What Lightning's predict takes.
        """
        for trees in self.trainer.predict(**kwargs) or []:
            print("\n\n".join(str(tree) for tree in trees))


@one_run()
def make_cli(args: Sequence[str] | None = None, *, run: bool = True) -> MgrpoCLI:
    """The parsed command line; with ``run`` its subcommand has run.

    Args:
        args: Command line without the program's name; None takes it from the process.
        run: False for a model, data module and trainer without a subcommand (for tests and benchmarks).

    Raises:
        ConfigurationError: Something cannot work, or another thread has a run.
    """
    quiet()
    sys.argv[1:] = compose(sys.argv[1:] if args is None else args)
    return MgrpoCLI(
        TeamModule,
        AlignedTrajectoryDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        save_config_callback=RunConfigCallback,
        save_config_kwargs={"save_to_log_dir": False},
        trainer_defaults=TRAINER_DEFAULTS,
        parser_class=TeamFileParser,
        parser_kwargs={
            "parser_mode": "yaml",  # references are ours: others would be looked for in users' texts too
            "epilog": "Also, each with its own --help: mgrpo replay, doctor, launch, store and view.",
        },
        run=run,
    )
