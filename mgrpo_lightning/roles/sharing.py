"""Roles that share an adapter (``shared_with``): find the owner; refuse other settings and separate processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.roles.config import RoleConfig


def adapter_owners(roles: Mapping[str, RoleConfig]) -> dict[str, str]:
    """Return, for each role, the role that owns its adapter: itself, or ``adapter.shared_with``.

    Raises:
        ConfigurationError: The owner does not exist or shares another role's adapter itself, or the two blocks differ
            in the base model, the adapter, the optimizer or ``trainable``.
    """
    return {name: _owner(name, role, roles) for name, role in roles.items()}


def refuse_split_adapters(roles: Mapping[str, RoleConfig], local: Sequence[str]) -> None:
    """Reject a team in which one adapter is used in two processes: processes do not exchange weights.

    Args:
        local: Roles that this process plays.

    Raises:
        ConfigurationError: A role is local and the owner of its adapter is not, or the reverse.
    """
    for name, owner in adapter_owners(roles).items():
        if (name in local) != (owner in local):
            raise ConfigurationError(
                f"role {name!r} shares the adapter of {owner!r}, which runs in another process.",
                hint="run this team in one process (leave run.role out), or give each role its own adapter.",
            )


def _owner(name: str, role: RoleConfig, roles: Mapping[str, RoleConfig]) -> str:
    owner = role.adapter.shared_with
    if owner is None:
        return name
    if owner not in roles or roles[owner].adapter.shared_with is not None:
        owners = sorted(other for other in roles if roles[other].adapter.shared_with is None)
        raise ConfigurationError(
            f"role {name!r} shares the adapter of {owner!r}, which has no adapter of its own.",
            hint=f"name a role that has one: {owners}.",
        )
    # Compare the two blocks without the reference itself.
    shared, own = roles[owner], replace(role, adapter=replace(role.adapter, shared_with=None))
    for key in ("base_model", "adapter", "optimizer", "trainable"):
        if getattr(own, key) != getattr(shared, key):
            raise ConfigurationError(
                f"roles {name!r} and {owner!r} share an adapter, but differ in {key}: "
                f"{getattr(own, key)} and {getattr(shared, key)}.",
                hint=f"write the same {key} in both blocks.",
            )
    return owner
