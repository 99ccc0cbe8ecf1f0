"""TeamModule in a real Trainer: who steps, what stays bitwise as it was, and which version plays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from typing_extensions import override

from mgrpo_lightning.data.dataloaders import TrainBatches
from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.records.batch import AlignedBatch, TeamBatch, TrainingRow
from mgrpo_lightning.roles.config import AdapterConfig, LimitsConfig, OptimizerConfig, RoleConfig
from tests.modules.conftest import random_batch
from tests.support.toy import ToyTask

State = dict[str, dict[str, Any]]


class Prepared(AlignedTrajectoryDataModule):
    """Streams random batches; ``idle`` names the (step, role) pairs without a row."""

    def __init__(self, *, idle: Sequence[tuple[int, str]] = ()) -> None:
        super().__init__(ToyTask())
        self.idle = idle
        self.versions: list[int] = []
        self.states: list[State] = []

    @override
    def train_dataloader(self) -> TrainBatches:
        assert self.trainer is not None
        return TrainBatches(self._team_batch, 0, self.trainer.max_steps)

    def _team_batch(self, step: int) -> TeamBatch:
        self.versions.append(self.module.policies[self.module.local_roles[0]].version)
        self.states.append(snapshot(self.module))
        roles = {role: self._batch(step, role) for role in self.module.trained_roles}
        return TeamBatch(step, [], roles, roles, {"play": 0.0})

    def _batch(self, step: int, role: str) -> AlignedBatch:
        batch = random_batch(role, rows=0 if (step, role) in self.idle else 3, seed=step)
        return replace(batch, rows=[self._sampled(row, self.module.policies[role]) for row in batch.rows])

    def _sampled(self, row: TrainingRow, policy: Policy) -> TrainingRow:
        """The row as if the policy had sampled it."""
        length = torch.tensor([len(row.ids)])
        with torch.no_grad():
            behaviour = action_logprobs(policy, row.ids[None], length, row.mask[None], temperature=row.temperature)
        return replace(row, behaviour=behaviour.float(), versions=(policy.version,))


def plain_trainer(folder: Path, steps: int, **options: Any) -> Trainer:
    """A trainer that fits and does nothing else, unless told to."""
    defaults: dict[str, Any] = {
        "max_epochs": -1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "accelerator": "cpu",
    }
    return Trainer(max_steps=steps, default_root_dir=folder, **{**defaults, **options})


def snapshot(module: TeamModule) -> State:
    """Adapter and moments of each role, and the base."""
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, torch.optim.Optimizer)
    state: State = {}
    for role, policy in module.policies.items():
        parameters = policy.named_parameters()
        moments = {
            f"{name}/{key}": value.clone()
            for name, parameter in parameters.items()
            for key, value in optimizer.state.get(parameter, {}).items()
        }
        state[role] = policy.adapter_state() | moments
    base = next(iter(module.policies.values())).base.model
    state["base"] = {name: p.detach().clone() for name, p in base.named_parameters() if "lora_" not in name}
    return state


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def fit(tiny_folder: Path, tmp_path: Path) -> Callable[..., tuple[TeamModule, Prepared]]:
    def run(
        data: Prepared, *, steps: int = 4, frozen: Sequence[str] = (), local: list[str] | None = None
    ) -> tuple[TeamModule, Prepared]:
        roles = {
            role: RoleConfig(
                base_model=str(tiny_folder),
                adapter=AdapterConfig(rank=rank),
                calls=["searcher"] if role == "main" else [],
                optimizer=OptimizerConfig(lr=1e-2, decay="linear", weight_decay=0.1),
                trainable=role not in frozen,
            )
            for role, rank in (("main", 4), ("searcher", 2))
        }
        module = TeamModule(roles, local_roles=local)
        trainer = plain_trainer(tmp_path, steps)
        trainer.fit(module, datamodule=data)
        return module, data

    return run


def test_every_step_is_played_by_the_version_before_it(fit: Callable[..., tuple[TeamModule, Prepared]]) -> None:
    module, data = fit(Prepared())
    assert data.versions == [0, 1, 2, 3]
    assert {policy.version for policy in module.policies.values()} == {4}
    assert module.num_steps == 4


def test_a_role_without_a_trainable_token_stays_bitwise_as_it_was(
    fit: Callable[..., tuple[TeamModule, Prepared]],
) -> None:
    module, data = fit(Prepared(idle=[(1, "searcher"), (2, "searcher")]))
    before, after_one, after_two = data.states[1:]
    assert not equal(before["main"], after_one["main"])
    assert equal(before["searcher"], after_one["searcher"])
    assert equal(before["searcher"], after_two["searcher"])
    assert module.policies["searcher"].version == 2, "its schedule counts its own updates"
    assert module.num_steps == 4


def test_a_frozen_role_and_the_base_never_change(fit: Callable[..., tuple[TeamModule, Prepared]]) -> None:
    module, data = fit(Prepared(), frozen=["searcher"])
    last = snapshot(module)
    assert equal(data.states[0]["searcher"], last["searcher"])
    assert equal(data.states[0]["base"], last["base"])
    assert not equal(data.states[0]["main"], last["main"])


def test_a_process_whose_only_role_is_frozen_counts_its_steps_and_moves_nothing(
    fit: Callable[..., tuple[TeamModule, Prepared]],
) -> None:
    module, data = fit(Prepared(), frozen=["searcher"], local=["searcher"])
    assert (module.num_steps, module.trainer.global_step) == (4, 4)
    assert data.versions == [0, 0, 0, 0]
    assert equal(data.states[0]["searcher"], snapshot(module)["searcher"])
    with pytest.raises(ConfigurationError, match="no role is trainable"):
        fit(Prepared(), frozen=["main", "searcher"])


def test_the_base_is_in_four_bit_and_no_part_of_the_module(fit: Callable[..., tuple[TeamModule, Prepared]]) -> None:
    module, _ = fit(Prepared(), steps=1)
    kinds = {
        type(m).__name__ for n, m in module.policies["main"].base.model.named_modules() if n.endswith("base_layer")
    }
    assert kinds == {"Linear4bit"}
    assert not list(module.parameters())
    assert len({id(policy.base.model) for policy in module.policies.values()}) == 1


def test_a_precision_of_the_trainers_own_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    module = TeamModule({"main": RoleConfig(base_model=str(tiny_folder))})
    with pytest.raises(ConfigurationError, match=r"trainer\.precision is 'bf16-mixed'.*HINT: .*compute_dtype"):
        plain_trainer(tmp_path, 1, precision="bf16-mixed").fit(module, datamodule=Prepared())


def test_a_notebook_that_fits_and_then_validates_plays_for_each_trainer(tiny_folder: Path, tmp_path: Path) -> None:
    class Heard(Callback):
        def __init__(self) -> None:
            self.stages: list[str] = []

        def on_play_start(self, total: int, stage: str) -> None:
            self.stages.append(stage)

    limits = LimitsConfig(turns=1, new_tokens=4)
    module = TeamModule({"main": RoleConfig(base_model=str(tiny_folder), limits=limits)})
    data = AlignedTrajectoryDataModule(ToyTask(), queries_per_step=1, rollouts_per_query=2)
    heard = [Heard(), Heard()]
    plain_trainer(tmp_path, 1, callbacks=[heard[0]]).fit(module, datamodule=data)
    plain_trainer(tmp_path, 1, callbacks=[heard[1]], limit_val_batches=1).validate(module, datamodule=data)
    assert [one.stages for one in heard] == [["train"], ["validate"]]
