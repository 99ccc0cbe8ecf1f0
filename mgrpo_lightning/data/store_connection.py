"""PeersConfig and ``open_exchange``: open a process's end of the store; refuse nested calls and discussions there."""

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
    """``error``: this process ends with an error that names the lost role; ``wait``: it waits until the role is
    restarted."""
    lost_after: Seconds = 300.0
    """Timeout in seconds: a role without a heartbeat for so long is lost. It also applies to a role that has not
    started yet."""
    keep_steps: Number | None = None
    """Number of steps kept in the store before the oldest checkpoint from which a role would resume; older records are
    removed. null keeps all. The run's journal keeps every call and report."""


def open_exchange(
    store: Path, trainer: Trainer, peers: PeersConfig, shared: Mapping[str, Any] | None = None
) -> Exchange:
    """Open this process's end of the store.

    Args:
        store: Folder of the store.
        trainer: The run's trainer; the local roles of its root module use the store.
        peers: Timeout, reaction to a lost role, and how many steps to keep.
        shared: Settings that must agree between all roles; None: not compared.

    Raises:
        ConfigurationError: A sub-agent calls other roles, or another role has a different number of ranks.
    """
    module: TeamModule = trainer.lightning_module  # type: ignore[assignment]
    _refuse_nested_calls(module)
    return Exchange(
        store,
        # A decoupled process has one local policy; roles behind an endpoint have none.
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
            f"role {module.main!r} discusses with {equals}; equals must play in one process.",
            hint="leave run.role out.",
        )
    for name, role in module.roles.items():
        if name != module.main and role.calls:
            raise ConfigurationError(
                f"role {name!r} calls {role.calls}; with one process per role, only main may call.",
                hint="play this team in one process: leave run.role out.",
            )
