"""One adapter for several roles: one policy that learns from all it did; refused where the roles contradict it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.roles.config import AdapterConfig, OptimizerConfig, RoleConfig
from mgrpo_lightning.roles.sharing import adapter_owners, refuse_split_adapters
from tests.modules.conftest import MakeRoles, gradients, random_batch
from tests.support.team_file import write_team_file

MAIN = RoleConfig("base", calls=["searcher", "reader"])
SEARCHER = RoleConfig("base", adapter=AdapterConfig(shared_with="main"))
READER = RoleConfig("base")


def shared_file(folder: Path, model: Path, **trainer: Any) -> Path:
    path = write_team_file(folder, model, **trainer)
    team = yaml.safe_load(path.read_text())
    searcher = team["model"]["roles"]["searcher"]
    searcher["adapter"] = {**searcher["adapter"], "shared_with": "main"}
    path.write_text(yaml.safe_dump(team))
    return path


def test_the_gradient_of_a_shared_adapter_is_the_sum_of_its_roles(make_roles: MakeRoles) -> None:
    owner = make_roles()["main"]
    config = replace(owner.config, adapter=replace(owner.config.adapter, shared_with="main"))
    sharer = RoleModule("searcher", config, token_budget=4096)
    sharer.attach(Policy("searcher", config, owner.policy.base, seed=0, owner=owner.policy))
    batches = {owner: random_batch("main"), sharer: random_batch("searcher", seed=1)}
    apart = []
    for module, batch in batches.items():
        module.update(batch)
        apart.append(gradients(module))
        for parameter in owner.policy.named_parameters().values():
            parameter.grad = None
    for module, batch in batches.items():
        module.update(batch)
    for name, total in gradients(owner).items():
        one, other = (found[name] for found in apart)
        assert total is not None
        assert one is not None
        assert other is not None
        torch.testing.assert_close(total, one + other, rtol=1e-12, atol=1e-15)
    owner.policy.version += 1
    assert sharer.policy.version == 1


def test_a_run_exports_saves_and_resumes_the_one_adapter(tiny_folder: Path, tmp_path: Path) -> None:
    team = shared_file(tmp_path, tiny_folder)
    folder = tmp_path / "runs" / "toy"
    main(["fit", f"--config={team}", "--trainer.max_steps=2"])
    assert [path.name for path in (folder / "adapters").iterdir()] == ["main"]
    main(["fit", f"--config={team}", "--ckpt_path=last"])
    saved = torch.load(next((folder / "checkpoints").glob("*.ckpt")), weights_only=True)
    (state,) = saved["roles"].values()
    assert state["updates"] == 4
    cli = make_cli([f"--config={team}"], run=False)
    cli.model.configure_model()
    cli.model.on_load_checkpoint(saved)
    assert cli.model.policies["searcher"].version == 4
    for name, value in cli.model.policies["searcher"].adapter_state().items():
        assert torch.equal(value, state["adapter"][name])


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        ({"searcher": replace(SEARCHER, adapter=AdapterConfig(shared_with="nobody"))}, "has no adapter of its own"),
        ({"reader": replace(READER, adapter=AdapterConfig(shared_with="searcher"))}, "has no adapter of its own"),
        ({"searcher": replace(SEARCHER, base_model="other")}, "differ in base_model: other and base"),
        ({"searcher": replace(SEARCHER, adapter=AdapterConfig(rank=8, shared_with="main"))}, "differ in adapter"),
        ({"searcher": replace(SEARCHER, optimizer=OptimizerConfig(lr=1.0))}, "differ in optimizer"),
        ({"searcher": replace(SEARCHER, trainable=False)}, "differ in trainable: False and True"),
    ],
)
def test_what_one_adapter_cannot_be_is_refused(roles: Mapping[str, RoleConfig], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        adapter_owners({"main": MAIN, "searcher": SEARCHER, "reader": READER, **roles})


def test_roles_of_one_adapter_stay_in_one_process() -> None:
    roles = {"main": MAIN, "searcher": SEARCHER, "reader": READER}
    assert adapter_owners(roles) == {"main": "main", "searcher": "main", "reader": "reader"}
    refuse_split_adapters(roles, ["main", "searcher"])
    refuse_split_adapters(roles, ["reader"])
    for local in (["main"], ["searcher", "reader"]):
        with pytest.raises(ConfigurationError, match="which runs in another process"):
            refuse_split_adapters(roles, local)
