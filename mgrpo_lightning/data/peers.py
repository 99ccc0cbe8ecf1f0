"""Peers: the processes that play the roles which are not local, and this one's end of the store they share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.store.exchange import Exchange

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule


@dataclass(frozen=True)
class PeersConfig:
    """What happens when a role that another process plays is gone."""

    on_loss: Literal["error", "wait"] = "error"
    """``error``: this process ends and says who is gone; ``wait``: it waits until the role is started again."""
    lost_after: float = 300.0
    """Seconds without a sign of life after which a role is gone; also for one that has not started yet."""


def open_exchange(store: Path, module: TeamModule, peers: PeersConfig, *, num_ranks: int) -> Exchange:
    """This process's end of the store.

    Args:
        store: Its folder.
        module: Whose local roles speak.
        peers: What happens when another role is gone.
        num_ranks: Of this role.

    Raises:
        ConfigurationError: A sub-agent calls others, or the role has several ranks.
    """
    _refuse_undecoupled(module, num_ranks)
    elsewhere = [name for name in module.roles if name not in module.local_roles]
    return Exchange(store, module.local_roles[0], peers=elsewhere, on_loss=peers.on_loss, lost_after=peers.lost_after)


def _refuse_undecoupled(module: TeamModule, num_ranks: int) -> None:
    for name, role in module.roles.items():
        if name != module.main and role.calls:
            raise ConfigurationError(
                f"role {name!r} calls {role.calls}; in processes of their own only main may call.",
                hint="play this team in one process: leave run.role out.",
            )
    if num_ranks > 1:
        raise ConfigurationError(
            f"role {module.local_roles[0]!r} has {num_ranks} ranks beside other roles' processes.",
            hint="set trainer.devices: 1 and trainer.num_nodes: 1.",
        )
