"""A step of a role without lag whose sampler and trainer disagree stops the run before it is kept, and says where."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.modules.mismatch import Place, worst_place
from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.records.batch import AlignedBatch
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig
from tests.modules.conftest import MakeRoles, random_batch
from tests.modules.test_team import Prepared, equal, plain_trainer, snapshot


def sampled_by(module: RoleModule) -> AlignedBatch:
    """Rows that the module's policy could have sampled."""
    batch = random_batch(module.name)
    rows = []
    for row in batch.rows:
        length = torch.tensor([len(row.ids)])
        with torch.no_grad():
            behaviour = action_logprobs(module.policy, row.ids[None], length, row.mask[None], temperature=1.0)
        rows.append(replace(row, behaviour=behaviour.float()))
    return replace(batch, rows=rows)


def shifted(batch: AlignedBatch, row: int, token: int, by: float) -> AlignedBatch:
    """As if one sampled token had had another log-probability."""
    behaviour = batch.rows[row].behaviour.clone()
    behaviour[token] -= by
    return replace(batch, rows=[replace(r, behaviour=behaviour) if i == row else r for i, r in enumerate(batch.rows)])


def checked(module: RoleModule, batch: AlignedBatch) -> None:
    module.refuse_mismatch(batch, module.update(batch), 5)


def test_what_the_adapter_sampled_itself_passes(make_roles: MakeRoles) -> None:
    main = make_roles()["main"]
    checked(main, sampled_by(main))


@pytest.mark.parametrize("by", [8.0, -8.0])
def test_a_large_mean_is_an_error_with_the_place(make_roles: MakeRoles, by: float) -> None:
    main = make_roles()["main"]
    batch = shifted(sampled_by(main), 3, 1, by)
    mask = batch.rows[3].mask
    token = int(mask.nonzero().flatten()[1])
    turn = sum(1 for i in range(1, token + 1) if mask[i] and not mask[i - 1]) - 1
    place = f"step 0, query 3, rollout 0, invocation 0, turn {turn}, token {token} of {len(mask)}"
    with pytest.raises(
        MgrpoError, match=rf"role 'main': in step 5 .* at most 8.*, at {place}; the step is discarded\. HINT"
    ):
        checked(main, batch)


def test_the_bound_is_that_of_the_type_the_base_computes_in(make_roles: MakeRoles) -> None:
    main = make_roles()["main"]
    batch = sampled_by(main)
    main.log_ratios = {}
    metrics = {"mismatch": 0.05, "mismatch_max": 1.0}
    with pytest.raises(MgrpoError, match=r"bound 0\.001.*at a trajectory of another rank"):
        main.refuse_mismatch(batch, metrics, 0)
    torch.nn.Module.to(main.policy.base.model, torch.bfloat16)
    main.refuse_mismatch(batch, metrics, 0)
    with pytest.raises(MgrpoError, match=r"bound 0\.06"):
        main.refuse_mismatch(batch, metrics | {"mismatch": 0.07}, 0)


@pytest.mark.parametrize("change", [{"lag": 1}, {"queue": 4}])
def test_a_role_that_lags_is_let_be(make_roles: MakeRoles, change: dict[str, Any]) -> None:
    main = make_roles()["main"]
    batch = shifted(sampled_by(main), 0, 0, 9.0)
    main.config = replace(main.config, **change)
    checked(main, batch)


def test_a_large_maximum_alone_is_told_once(make_roles: MakeRoles, caplog: pytest.LogCaptureFixture) -> None:
    main = make_roles()["main"]
    metrics = {"mismatch": 1e-4, "mismatch_max": 2.0}
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            main.refuse_mismatch(sampled_by(main), metrics, step)
    (record,) = caplog.records
    assert "role 'main': in step 0" in record.getMessage()
    assert "at most 2" in record.getMessage()


def test_the_worst_place_counts_turns_and_tokens() -> None:
    (row, *_) = random_batch("main").rows
    row = replace(
        row,
        ids=torch.arange(6),
        mask=torch.tensor([False, True, True, False, True, True]),
        behaviour=torch.zeros(4),
    )
    found = worst_place([row], {row.key: torch.tensor([0.1, -0.2, 0.1, -0.3])})
    assert found == Place(row.key, turn=1, token=5, length=6)
    assert worst_place([row], {}) is None
    again = replace(row, segment=1)
    found = worst_place([row, again], {row.key: torch.tensor([0.1, -0.2, 0.1, -0.3, 0.1, 0.4, 0.1, 0.1])})
    assert found == Place(row.key, turn=2, token=8, length=12), "counted over all segments"


@pytest.mark.parametrize("role", ["main", "searcher"])
def test_the_run_stops_before_anything_moves(tiny_folder: Path, tmp_path: Path, role: str) -> None:
    """Not the role that disagrees, nor one that was computed before it."""

    class Disagreeing(Prepared):
        def _batch(self, step: int, name: str) -> AlignedBatch:
            batch = super()._batch(step, name)
            return shifted(batch, 0, 0, 5.0) if (step, name) == (1, role) else batch

    roles = {
        name: RoleConfig(
            base_model=str(tiny_folder), adapter=AdapterConfig(rank=4), calls=["searcher"] if name == "main" else []
        )
        for name in ("main", "searcher")
    }
    module, data = TeamModule(roles, quantization="none"), Disagreeing()
    with pytest.raises(MgrpoError, match=rf"role '{role}': in step 1 .*the step is discarded"):
        plain_trainer(tmp_path, 4).fit(module, datamodule=data)
    assert module.num_steps == 1
    now = snapshot(module)
    assert all(equal(now[name], data.states[1][name]) for name in roles)
    assert {policy.version for policy in module.policies.values()} == {1}
