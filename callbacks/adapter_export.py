"""AdapterExport: write one PEFT folder for each role, for ``PeftModel.from_pretrained``, vLLM or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from mgrpo_lightning.persistence.atomic import atomic_folder
from mgrpo_lightning.ranges import Count, ranged

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule


@ranged("export")
class AdapterExport(Callback):
    """Writes every role's adapter as a PEFT folder at the end of a fit and, optionally, every few steps.

    Roles that share an adapter get one folder, under the name of the role that owns the adapter.

    A folder is replaced atomically: a reader sees the old adapter or the new one, never a mix.

    Args:
        dirpath: Folder of the roles' folders; None is ``adapters`` in the run folder.
        every_n_steps: Training steps between exports during a fit; None exports at the end only.

    Raises:
        ConfigurationError: ``every_n_steps`` is below 1.
    """

    def __init__(self, dirpath: str | None = None, every_n_steps: Count | None = None) -> None:
        self.dirpath = None if dirpath is None else str(Path(dirpath).absolute())
        self.every_n_steps = every_n_steps
        self._exported_step: int | None = None

    def folder(self, trainer: Trainer) -> Path:
        """Return the folder that holds the roles' folders.

        Args:
            trainer: Trainer of the run, for its ``default_root_dir``.
        """
        return Path(self.dirpath or Path(trainer.default_root_dir) / "adapters")

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._export(trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._export(trainer, pl_module)

    def _export(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # on_train_end directly follows the last batch, which may have exported this step already.
        if trainer.is_global_zero and trainer.global_step != self._exported_step:
            for role, policy in cast("TeamModule", pl_module).adapters.items():
                with atomic_folder(self.folder(trainer) / role) as folder:
                    policy.save_peft(folder)
        self._exported_step = trainer.global_step
