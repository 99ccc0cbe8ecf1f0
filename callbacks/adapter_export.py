"""AdapterExport: write a folder for each adapter (peft, vLLM, hub), at the end and every few steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from mgrpo_lightning.agents.players import make_seats
from mgrpo_lightning.agents.role_file import file_name, role_file
from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.callbacks.adapter_card import FILE_NAME, Provenance, adapter_card
from mgrpo_lightning.persistence.atomic import atomic_folder
from mgrpo_lightning.policy.adapter_folder import NamedBase, TrainedAdapter, named_base, write_adapter
from mgrpo_lightning.protocol.actions import HermesDialect
from mgrpo_lightning.ranges import Count, ranged
from mgrpo_lightning.tools.base import wanted_tools

if TYPE_CHECKING:
    from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
    from mgrpo_lightning.modules.team import TeamModule


@ranged("export")
class AdapterExport(Callback):
    """Writes every role's adapter as a folder at the end of a fit and, optionally, every few steps.

    A folder holds PEFT's files, the tokenizer, the role's prompt, tools and limits, and a model card. Roles that share
    an adapter get one folder, under the name of the role that owns the adapter.

    A folder is replaced atomically: a reader sees the old adapter or the new one, never a mix. What does not change
    during a run, such as the tokenizer, is written once and then linked.

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
        self._seats: dict[str, Seat] | None = None
        self._written: set[Path] = set()

    def folder(self, trainer: Trainer) -> Path:
        """Return the folder that holds the roles' folders.

        Args:
            trainer: Trainer of the run, for its ``default_root_dir``.
        """
        return Path(self.dirpath or Path(trainer.default_root_dir) / "adapters")

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # A notebook's next fit may have another team in the same folder.
        self._seats, self._written, self._exported_step = None, set(), None

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
            module = cast("TeamModule", pl_module)
            self._seats = self._seats or seats_of(trainer, module)
            for role in module.adapters:
                target = self.folder(trainer) / role
                export_role(
                    trainer, module, self._seats, role, target, like=target if target in self._written else None
                )
                self._written.add(target)
        self._exported_step = trainer.global_step


def seats_of(trainer: Trainer, module: TeamModule) -> dict[str, Seat]:
    """The seats of the roles that this process plays.

    Args:
        trainer: Trainer whose data module has the task.
        module: The root module, its policies loaded.
    """
    tools = wanted_tools(module.roles, _data(trainer).task.tools())
    return make_seats(module.roles, module.chats, tools, HermesDialect())


def export_role(
    trainer: Trainer,
    module: TeamModule,
    seats: Mapping[str, Seat],
    role: str,
    target: Path,
    *,
    like: Path | None = None,
) -> None:
    """Replace the folder of one adapter atomically.

    Args:
        seats: Of all roles that this process plays.
        role: Role that owns the adapter, or plays with it.
        target: The folder.
        like: An earlier export with the same tokenizer; see ``write_adapter``.
    """
    policy = module.policies[role]
    players = {name: seats[name] for name, one in module.policies.items() if one.adapter == policy.adapter}
    run = Path(trainer.default_root_dir).name
    origin = Provenance(run, module.roles[role], _data(trainer).task, module.validation_results)
    with atomic_folder(target) as folder:
        write_role(folder, policy.trained(), named_base(policy.identity), players, origin, like=like)


def _data(trainer: Trainer) -> AlignedTrajectoryDataModule:
    return trainer.datamodule  # type: ignore[attr-defined, no-any-return]


def write_role(
    folder: Path,
    adapter: TrainedAdapter,
    base: NamedBase,
    players: Mapping[str, Seat],
    origin: Provenance,
    *,
    like: Path | None = None,
) -> None:
    """Write the whole folder of an adapter.

    Args:
        base: The base that the folder names.
        players: The roles that play with the adapter.
        origin: What the card says about the training.
        like: An earlier export with the same tokenizer; see ``write_adapter``.
    """
    write_adapter(adapter, folder, base, like=like)
    write_about(folder, adapter, players, base, adapter_card(adapter, base, origin))


def write_about(folder: Path, adapter: TrainedAdapter, players: Mapping[str, Seat], base: NamedBase, card: str) -> None:
    """Write the files of the roles and the card.

    Args:
        players: The roles that play with the adapter.
        base: How the base, or a merged model, is loaded.
        card: Text of the card.
    """
    for name, seat in players.items():
        (folder / file_name(name, adapter.role)).write_text(role_file(seat, base.load), encoding="utf-8")
    (folder / FILE_NAME).write_text(card, encoding="utf-8")
