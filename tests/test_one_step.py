"""The first example to read: its losses, gradients and new adapters are those of the package for the same rollouts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from examples import one_step
from examples.one_step import RoleStep
from mgrpo_lightning.data.aligned_batches import align_role
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.records.batch import AlignedBatch
from mgrpo_lightning.records.trajectory import Group

Done = tuple[list[Group], dict[str, RoleStep]]


@pytest.fixture(scope="module")
def done() -> Done:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_step, "K", 4)  # half of the rollouts take half of the time
        return one_step.step()


@pytest.fixture(scope="module")
def team() -> TeamModule:
    module = TeamModule(one_step.ROLES, quantization="nf4", seed=one_step.SEED)
    module.configure_model()
    return module


def batch_of(groups: list[Group], role: str) -> AlignedBatch:
    """What the data module gives the role for the groups."""
    objective, alignment = one_step.ROLES[role].objective, one_step.ALIGNMENT["searcher"]
    return align_role(groups, role, objective, alignment, seed=one_step.SEED, step=one_step.STEP)


@pytest.mark.parametrize("role", ["main", "searcher"])
def test_credit_is_that_of_the_data_module(done: Done, role: str) -> None:
    groups, roles = done
    found = [
        (m.trajectory.key, m.advantage, m.coefficient, m.reward) for m in roles[role].members if m.multiplicity > 0
    ]
    rewards = {
        t.key: rollout.scores[t.key.invocation].total
        for group in groups
        for rollout in group.rollouts
        for t in rollout.trajectories(role)
    }
    rows = batch_of(groups, role).rows
    assert found == [(row.key, row.advantage, row.coefficient, rewards[row.key]) for row in rows]


def test_one_step_is_that_of_the_team_module(done: Done, team: TeamModule) -> None:
    groups, roles = done
    optimizer = team.configure_optimizers()
    for name, expected in roles.items():
        module, batch = team.role_module(name), batch_of(groups, name)
        assert module.update(batch)["loss"] == pytest.approx(expected.loss, abs=1e-6)
        assert module.clip() == pytest.approx(expected.norm, rel=1e-4)
        assert expected.norm > 0, "the example trains nothing"
        compare({k: p.grad for k, p in module.policy.named_parameters().items()}, gradients(expected), 1e-3)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for name, expected in roles.items():
        module = team.role_module(name)
        compare(module.policy.adapter_state(), expected.policy.adapter_state(), 1e-3)
        # Now every ratio differs from 1, so the loss is no longer 0.
        module.policy.load_adapter_state(expected.policy.adapter_state())
        assert module.update(batch_of(groups, name))["loss"] == pytest.approx(expected.loss_after, rel=1e-3)
        assert expected.loss_after < 0


def test_the_table_shows_every_trajectory(done: Done) -> None:
    groups, roles = done
    lines = one_step.table(groups, roles).splitlines()
    played = sum(1 for group in groups for rollout in group.rollouts for _ in rollout.trajectories())
    assert len([line for line in lines if line.startswith("    ")]) == played
    assert all(group.question.text in "\n".join(lines) for group in groups)


def gradients(done: RoleStep) -> dict[str, torch.Tensor | None]:
    return {name: parameter.grad for name, parameter in done.policy.named_parameters().items()}


def compare(
    found: Mapping[str, torch.Tensor | None], expected: Mapping[str, torch.Tensor | None], tolerance: float
) -> None:
    """Require that two gradients or adapters differ by rounding only."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        other = found[name]
        assert value is not None, name
        assert other is not None, name
        assert float((other - value).norm()) <= tolerance * float(value.norm()) + 1e-9, name
