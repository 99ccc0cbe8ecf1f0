"""What a checkpoint holds of a team, and what a run takes back of it."""

from __future__ import annotations

import pytest
import torch

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.modules.checkpoint_state import load_optimizer_state, load_role_states, role_states
from mgrpo_lightning.modules.role import RoleModule
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


@pytest.mark.parametrize("where", ["adapter", "optimizer"])
def test_numbers_that_are_not_finite_are_neither_saved_nor_loaded(make_roles: MakeRoles, where: str) -> None:
    roles = make_roles()
    roles["main"].update(random_batch("main"))
    optimizer = optimizer_of(roles)
    optimizer.step()
    policies = {name: role.policy for name, role in roles.items()}
    saved = role_states(policies, optimizer)
    name, parameter = sorted(policies["main"].named_parameters().items())[5]
    found = name if where == "adapter" else f"exp_avg of {name}"
    tensor = saved["main"]["adapter"][name] if where == "adapter" else saved["main"]["optimizer"][name]["exp_avg"]
    tensor.view(-1)[2] = float("nan")
    before = policies["main"].adapter_state()
    with pytest.raises(DataError, match=rf"x\.ckpt, role 'main': {found} contains NaN or infinite values"):
        load_role_states(policies, {"roles": saved}, source="x.ckpt")
    assert all(torch.equal(value, before[key]) for key, value in policies["main"].adapter_state().items())
    with torch.no_grad():
        (parameter if where == "adapter" else optimizer.state[parameter]["exp_avg"]).view(-1)[2] = float("inf")
    with pytest.raises(DataError, match=rf"role 'main': {found}"):
        role_states(policies, optimizer)
