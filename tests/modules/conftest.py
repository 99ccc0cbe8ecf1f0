"""Two roles on one tiny base in float64, and random rows to train them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.records.batch import AlignedBatch, TrainingRow
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.roles.config import AdapterConfig, OptimizerConfig, RoleConfig
from tests.support.tiny import make_tiny_model

MakeRoles = Callable[..., dict[str, RoleModule]]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def make_roles(tiny_folder: Path) -> MakeRoles:
    return partial(build_roles, tiny_folder)


def build_roles(
    folder: Path, token_budget: int = 4096, *, dense_copy: bool = False, **objective: object
) -> dict[str, RoleModule]:
    """Two roles with random adapters of different rank; the same in every process."""
    base = load_base(str(folder), quantization="none", compute_dtype=torch.float64, dense_copy=dense_copy)
    modules = {}
    for role, rank in (("main", 4), ("searcher", 2)):
        config = RoleConfig(
            base_model=str(folder),
            adapter=AdapterConfig(rank=rank, alpha=8),
            objective=ObjectiveConfig(**objective),  # type: ignore[arg-type]
            optimizer=OptimizerConfig(lr=1e-2),
        )
        modules[role] = RoleModule(role, config, token_budget=token_budget)
        policy = Policy(role, config, base, seed=0)
        generator = torch.Generator().manual_seed(rank)
        for parameter in policy.named_parameters().values():
            parameter.data = torch.randn(parameter.shape, dtype=torch.float64, generator=generator) / 10
        modules[role].attach(policy)
    return modules


def random_batch(role: str, *, rows: int = 7, seed: int = 0, zero: tuple[int, ...] = ()) -> AlignedBatch:
    """Rows of random ids, lengths, masks, behaviour log-probabilities and advantages; those in ``zero`` have none."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(rows):
        length = int(torch.randint(6, 40, (1,), generator=generator))
        mask = torch.rand(length, generator=generator) < 0.4
        mask[0], mask[-1] = False, True
        made.append(
            TrainingRow(
                key=Key(0, index, 0, 0),
                ids=torch.randint(0, 300, (length,), generator=generator),
                mask=mask,
                behaviour=torch.randn(int(mask.sum()), generator=generator) * 0.2 - 6,
                advantage=0.0 if index in zero else float(torch.randn(1, generator=generator)),
                coefficient=1 / rows,
                temperature=1.0,
                versions=(0,),
            )
        )
    return AlignedBatch(role, made, num_groups=rows)


def grown(rows: list[TrainingRow], seed: int = 1) -> list[TrainingRow]:
    """For each row another one that begins with the first half of it, and goes on in another way."""
    others = random_batch("main", rows=len(rows), seed=seed).rows
    made = []
    for index, (row, other) in enumerate(zip(rows, others, strict=True)):
        half = len(row.ids) // 2
        mask = torch.cat([row.mask[:half], other.mask])
        made.append(
            replace(
                other,
                key=Key(0, 100 + index, 0, 0),
                ids=torch.cat([row.ids[:half], other.ids]),
                mask=mask,
                behaviour=torch.cat([row.behaviour[: int(row.mask[:half].sum())], other.behaviour]),
            )
        )
    return made


def scaled(batch: AlignedBatch, factor: float) -> AlignedBatch:
    """The batch with all advantages multiplied."""
    return replace(batch, rows=[replace(row, advantage=row.advantage * factor) for row in batch.rows])


def gradients(module: RoleModule) -> dict[str, torch.Tensor | None]:
    """A copy of the gradients of the role's adapter."""
    return {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in module.policy.named_parameters().items()
    }
