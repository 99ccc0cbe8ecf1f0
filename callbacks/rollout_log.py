"""RolloutLog: write rollouts to the journal before each update, log ratios after it, texts and tables to loggers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from mgrpo_lightning.callbacks.held_out import HeldOut
from mgrpo_lightning.callbacks.rollout_tables import has_tables, log_rollouts, rollout_table
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.protocol.tree import render
from mgrpo_lightning.ranges import Count, Number, ranged
from mgrpo_lightning.records.batch import TeamBatch
from mgrpo_lightning.records.journal import Extra, write_groups
from mgrpo_lightning.records.ratios import write_ratios
from mgrpo_lightning.records.trajectory import Group

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule
    from mgrpo_lightning.policy.identity import Identity


@ranged("rollout_log")
class RolloutLog(HeldOut):
    """Writes the journal of every step before its update, so that a crash loses no finished rollout.

    Each rank writes a file with its own rollouts.

    The folder itself holds the training and validation rollouts of a fit. A later ``mgrpo validate`` or ``mgrpo test``
    writes into a subfolder of that name.

    Args:
        dirpath: Folder of the journal; None is ``journal`` in the run folder.
        every_n_steps: Write the journal of every n-th training step. Only updates of these steps can be recomputed.
            After the update, the log ratios of its tokens are written too (``mgrpo_lightning.records.ratios``).
        texts: Number of groups shown in loggers, for each step or validation run: the first groups. TensorBoard gets
            the first rollout of each as text, Weights & Biases and MLflow get all rollouts as a table. 0: none.

    Raises:
        ConfigurationError: ``every_n_steps`` is below 1. Or it is above 1 and a role has a lag or a queue: a resumed
            run reads that role's pending rollouts from the journal.
    """

    def __init__(self, dirpath: str | None = None, every_n_steps: Count = 1, texts: Number = 2) -> None:
        super().__init__()
        self.dirpath = None if dirpath is None else str(Path(dirpath).absolute())
        self.every_n_steps = every_n_steps
        self.texts = texts

    def folder(self, trainer: Trainer) -> Path:
        """Return the folder of the journal.

        Args:
            trainer: Trainer of the run, for its ``default_root_dir``.
        """
        return Path(self.dirpath or Path(trainer.default_root_dir) / "journal")

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast("TeamModule", pl_module)
        late = [name for name in module.trained_roles if module.roles[name].lag or module.roles[name].queue]
        if late and self.every_n_steps > 1:
            raise ConfigurationError(
                f"rollout_log.every_n_steps is {self.every_n_steps}, but role {late[0]!r} has a lag or a queue.",
                hint="set it to 1: a resumed run reads the rollouts that are not trained on yet from the journal.",
            )

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(batch, TeamBatch)
        if batch.step % self.every_n_steps == 0:
            rows = [row for aligned in batch.played.values() for row in aligned.rows]
            extras = {row.key: Extra(row.advantage, row.coefficient) for row in rows}
            identity = _identity(pl_module)  # a replay or a resumed run refuses the journal of another model
            write_groups(self.folder(trainer), batch.step, batch.groups, "train", extras, identity=identity)
            self._show(trainer, batch.groups, batch.step, "train")

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch.step % self.every_n_steps == 0:
            module = cast("TeamModule", pl_module)
            ratios = {name: module.role_module(name).log_ratios for name in module.trained_roles}
            write_ratios(
                self.folder(trainer), batch.step, ratios, rank=trainer.global_rank, num_ranks=trainer.world_size
            )

    @override
    def on_held_out(self, trainer: Trainer, groups: list[Group]) -> None:
        step = groups[0].rollouts[0].main.key.step
        assert trainer.state.fn is not None
        command = "" if trainer.state.fn == TrainerFn.FITTING else trainer.state.fn.value
        last = trainer.global_rank + 1 == trainer.world_size
        identity = _identity(trainer.lightning_module)
        write_groups(self.folder(trainer) / command, step, groups, "validate", identity=identity, last=last)
        self._show(trainer, groups, step, command or "validate")

    def _show(self, trainer: Trainer, groups: Sequence[Group], step: int, tag: str) -> None:
        # Texts of encrypted benchmarks must not reach logs, which people share.
        shown = [group for group in groups[: self.texts] if not group.question.encrypted]
        for logger in trainer.loggers:
            if shown and has_tables(logger) and trainer.is_global_zero:
                roles = list(cast("TeamModule", trainer.lightning_module).roles)
                log_rollouts(logger, rollout_table(shown, roles, step), tag, step)
            if isinstance(logger, TensorBoardLogger):
                for number, group in enumerate(shown):
                    logger.experiment.add_text(f"{tag}/rollout_{number}", _verbatim(render(group.rollouts[0])), step)


def _identity(module: LightningModule) -> dict[str, Identity]:
    return {name: policy.identity for name, policy in cast("TeamModule", module).policies.items()}


def _verbatim(text: str) -> str:
    """Indent text by four spaces, which makes it a code block in TensorBoard's Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())
