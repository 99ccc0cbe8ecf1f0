"""What a checkpoint holds of a team, and what a run takes back of it."""

from __future__ import annotations

import torch

from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.modules.state import load_optimizer_state, role_states
from tests.modules.conftest import MakeRoles, random_batch


def optimizer_of(roles: dict[str, RoleModule]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        {"name": name, "params": list(role.policy.named_parameters().values())} for name, role in roles.items()
    )


def test_moments_come_back_but_for_those_of_a_role_that_is_frozen_since(make_roles: MakeRoles) -> None:
    roles = make_roles()
    for name, role in roles.items():
        role.update(random_batch(name))
    optimizer = optimizer_of(roles)
    optimizer.step()
    policies = {name: role.policy for name, role in roles.items()}
    saved = role_states(policies, optimizer)
    assert all(state["optimizer"] for state in saved.values())

    again = optimizer_of({"main": roles["main"]})
    load_optimizer_state(again, policies, saved)
    again.state_dict()  # what Lightning asks for at every checkpoint
    found = role_states(policies, again)
    assert found["searcher"]["optimizer"] == {}
    for name, moments in saved["main"]["optimizer"].items():
        assert all(torch.equal(found["main"]["optimizer"][name][key], value) for key, value in moments.items())
