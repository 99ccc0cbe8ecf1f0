"""Roles that share one adapter: one model plays them all, and learns from what it did as any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.roles.config import RoleConfig


def adapter_owners(roles: Mapping[str, RoleConfig]) -> dict[str, str]:
    """Whose adapter each role plays with: its own, or that of ``adapter.shared_with``.

    Args:
        roles: The team.

    Raises:
        ConfigurationError: There is no such role, it shares another's itself, or the two blocks say different things of
            the one adapter: its base and start, its optimizer, whether it is trained.
    """
    return {name: _owner(name, role, roles) for name, role in roles.items()}


def refuse_split_adapters(roles: Mapping[str, RoleConfig], local: Sequence[str]) -> None:
    """Refuse roles of one adapter in different processes: weights never leave theirs.

    Args:
        roles: The team.
        local: Roles that are played here.

    Raises:
        ConfigurationError: A role is here and the owner of its adapter is not, or the other way round.
    """
    for name, owner in adapter_owners(roles).items():
        if (name in local) != (owner in local):
            raise ConfigurationError(
                f"role {name!r} shares the adapter of {owner!r}, which another process plays.",
                hint="play this team in one process (leave run.role out), or give each role its own adapter.",
            )


def _owner(name: str, role: RoleConfig, roles: Mapping[str, RoleConfig]) -> str:
    owner = role.adapter.shared_with
    if owner is None:
        return name
    if owner not in roles or roles[owner].adapter.shared_with is not None:
        owners = sorted(other for other in roles if roles[other].adapter.shared_with is None)
        raise ConfigurationError(
            f"role {name!r} shares the adapter of {owner!r}, which has none of its own.",
            hint=f"roles with an adapter of their own are {owners}.",
        )
    shared, own = roles[owner], replace(role, adapter=replace(role.adapter, shared_with=None))
    for key in ("base_model", "adapter", "optimizer", "trainable"):
        if getattr(own, key) != getattr(shared, key):
            raise ConfigurationError(
                f"roles {name!r} and {owner!r} share an adapter and differ in {key}: "
                f"{getattr(own, key)} and {getattr(shared, key)}.",
                hint=f"write the same {key} in both blocks.",
            )
    return owner
