"""Decide which roles this process plays, load each base once, make a policy (or an endpoint's chat) for each role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.loading import Base, load_base, load_tokenizer
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.roles.config import RoleConfig, longest_row


def played_here(roles: Mapping[str, RoleConfig], local_roles: Sequence[str] | None) -> list[str]:
    """Return the roles that this process plays: the local ones, and all roles behind an endpoint.

    Args:
        local_roles: Names of the local roles; None: all.

    Raises:
        ConfigurationError: A local role does not exist, or all local roles are behind an endpoint.
    """
    if unknown := sorted(set(local_roles or ()) - set(roles)):
        raise ConfigurationError(
            f"local role {unknown[0]!r} is not in this team.", hint=f"use its roles: {sorted(roles)}."
        )
    served = {name for name, role in roles.items() if role.endpoint}
    if local_roles is not None and not set(local_roles) - served:
        raise ConfigurationError(
            f"local role {local_roles[0]!r} is played by an endpoint.", hint="it needs no process: leave it out."
        )
    return [name for name in roles if local_roles is None or name in {*local_roles, *served}]


def load_policies(
    roles: Mapping[str, RoleConfig],
    local_roles: Sequence[str],
    owners: Mapping[str, str],
    *,
    quantization: Literal["nf4", "none"],
    compute_dtype: torch.dtype,
    dense_copy: bool,
    device: torch.device,
    seed: int,
) -> tuple[dict[str, Policy], dict[str, Chat]]:
    """Load the base models, each once, and make the policies on them.

    Args:
        local_roles: Roles that this process plays.
        owners: The role that owns the adapter of each role.
        quantization: How the linear layers of the bases are stored.
        compute_dtype: Data type in which the bases compute.
        dense_copy: Sample from a dense copy of the linear layers.
        device: Device of the bases and adapters.
        seed: Fixes the initial values of the adapters.

    Returns:
        The policies, and the chats, by role. A role behind an endpoint has a chat and no policy.
    """
    bases: dict[str, Base] = {}
    policies: dict[str, Policy] = {}
    chats: dict[str, Chat] = {}
    # Owners first, because a role that shares an adapter needs its owner's policy.
    for name in sorted(local_roles, key=lambda role: owners[role] != role):
        config = roles[name]
        if config.endpoint is not None:
            chats[name] = Chat(load_tokenizer(config.base_model), config.chat_template)
            continue
        if config.base_model not in bases:
            bases[config.base_model] = load_base(
                config.base_model,
                quantization=quantization,
                compute_dtype=compute_dtype,
                device=device,
                dense_copy=dense_copy,
                context=longest_row(roles, config.base_model),
            )
        owner = None if owners[name] == name else policies[owners[name]]
        policies[name] = Policy(name, config, bases[config.base_model], seed=seed, owner=owner)
        chats[name] = policies[name].chat
    return policies, chats
