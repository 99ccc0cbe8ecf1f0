"""Peers: the processes that play the roles which are not local, and this one's end of the store they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Trainer

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.ranges import Number, Seconds, ranged
from mgrpo_lightning.store.exchange import Exchange

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule


@ranged("peers")
@dataclass(frozen=True)
class PeersConfig:
    """What happens when a role that another process plays is gone."""

    on_loss: Literal["error", "wait"] = "error"
    """``error``: this process ends and says who is gone; ``wait``: it waits until the role is started again."""
    lost_after: Seconds = 300.0
    """Seconds without a sign of life after which a role is gone; also for one that has not started yet."""
    keep_steps: Number | None = None
    """What is said of older steps is removed from the store, in steps before the oldest checkpoint from which a role
    would go on; null: nothing is. The run's journal keeps every call and report."""


def open_exchange(
    store: Path, trainer: Trainer, peers: PeersConfig, shared: Mapping[str, Any] | None = None
) -> Exchange:
    """This process's end of the store.

    Args:
        store: Its folder.
        trainer: Whose root module's local roles speak.
        peers: What happens when another role is gone, and what is kept.
        shared: Settings that all roles must have alike; None: not known.

    Raises:
        ConfigurationError: A sub-agent calls others, or another role has another number of ranks.
    """
    module: TeamModule = trainer.lightning_module  # type: ignore[assignment]
    _refuse_nested_calls(module)
    return Exchange(
        store,
        next(iter(module.policies)),
        rank=trainer.global_rank,
        num_ranks=trainer.world_size,
        first_step=module.num_steps,
        peers=[name for name in module.roles if name not in module.local_roles],
        on_loss=peers.on_loss,
        lost_after=peers.lost_after,
        settings=shared,
        keep_steps=peers.keep_steps,
    )


def _refuse_nested_calls(module: TeamModule) -> None:
    if equals := module.roles[module.main].discusses_with:
        raise ConfigurationError(
            f"role {module.main!r} discusses with {equals}; equals play in one process.",
            hint="leave run.role out.",
        )
    for name, role in module.roles.items():
        if name != module.main and role.calls:
            raise ConfigurationError(
                f"role {name!r} calls {role.calls}; in processes of their own only main may call.",
                hint="play this team in one process: leave run.role out.",
            )
