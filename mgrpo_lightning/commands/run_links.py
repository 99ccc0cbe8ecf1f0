"""Link folders, seeds and local roles of other blocks to the ``run`` block; save the resolved config as config.yaml."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from typing_extensions import override

from mgrpo_lightning.store.layout import FOLDER

OF_A_COMMAND = ("ckpt_path", "weights_only", "dry_run", "run.accept_changes")
"""Settings of one command line, not of the run. They are not saved, because other commands read the saved config."""


class RunConfigCallback(SaveConfigCallback):
    """Saves the resolved config of a fit as config.yaml in the run folder; a resumed fit replaces the file."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    @override
    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        path = Path(trainer.default_root_dir) / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        config = self.config.clone()  # the keys are removed from the saved file only, not from the CLI's config
        for name in OF_A_COMMAND:
            config.pop(name, None)  # None: a program that calls trainer.fit itself has no key ckpt_path
        self.parser.save(config, str(path), skip_none=False, overwrite=True, multifile=False, skip_validation=True)


def link_run(parser: LightningArgumentParser) -> None:
    """Make trainer, checkpoints, data and model take their folders, seed and role from ``run``.

    Folders are made absolute here, so a run stays in one place even if a tool changes the working directory.

    Args:
        parser: Parser that already has the arguments of all of them.
    """
    folder = ("run.root", "run.name", "run.role")
    parser.link_arguments(folder, "trainer.default_root_dir", compute_fn=_folder)
    parser.link_arguments(folder, "checkpoint.dirpath", compute_fn=_checkpoints)
    parser.link_arguments(folder, "data.store", compute_fn=_store)
    parser.link_arguments((*folder, "rollout_log.dirpath"), "data.journal", compute_fn=_journal)
    parser.link_arguments("run.role", "model.local_roles", compute_fn=_local)
    parser.link_arguments("run.accept_changes", "model.accept_changes")
    parser.link_arguments("run.seed", "seed_everything")
    parser.link_arguments("run.seed", "model.seed")
    parser.link_arguments("run.seed", "data.seed")


def _folder(root: str, name: str, role: str | None) -> str:
    return str(Path(root, name, role or "").absolute())


def _checkpoints(root: str, name: str, role: str | None) -> str:
    return str(Path(_folder(root, name, role)) / "checkpoints")


def _journal(root: str, name: str, role: str | None, dirpath: str | None) -> str:
    return str(Path(dirpath or Path(_folder(root, name, role)) / "journal").absolute())


def _store(root: str, name: str, role: str | None) -> str | None:
    return None if role is None else str(Path(root, name, FOLDER).absolute())


def _local(role: str | None) -> list[str] | None:
    return None if role is None else [role]
