"""Two ranks are one: gradients, metrics and coefficients of a step do not depend on who has which rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.records.batch import AlignedBatch
from tests.modules.conftest import MakeRoles, build_roles, gradients, random_batch
from tests.support.started import server

SPLITS = {"even": [0, 2, 4, 6], "uneven": [3], "one rank has nothing": [], "all zero on one": [1, 4]}
"""Rows of the first rank; the second has the others. Rows 1 and 4 have no advantage."""


def batch() -> AlignedBatch:
    return random_batch("main", zero=(1, 4))


def part(rows: Sequence[int], rank: int) -> AlignedBatch:
    whole = batch()
    return replace(whole, rows=[row for i, row in enumerate(whole.rows) if (i in rows) == (rank == 0)])


def _rank(rank: int, folder: str, model: str, reduction: str) -> None:
    torch.set_num_threads(1)
    where = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", where, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    found = {}
    for name, rows in SPLITS.items():
        main = build_roles(Path(model), 80, reduction=reduction)["main"]
        found[name] = outcome(main, part(rows, rank))
    idle = build_roles(Path(model), 80, reduction=reduction)["main"]
    idle.update(replace(batch(), rows=[row for row in batch().rows if not row.advantage]))
    idle.reduce()
    found["idle"] = (None, [gradient for gradient in gradients(idle).values() if gradient is not None])
    torch.save(found, Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def outcome(main: RoleModule, rows: AlignedBatch) -> tuple[dict[str, float] | None, list[torch.Tensor]]:
    metrics = main.update(rows)
    main.reduce()
    return metrics, [gradient for gradient in gradients(main).values() if gradient is not None]


@pytest.mark.parametrize("reduction", ["trajectory_mean", "token_mean"])
def test_two_ranks_give_the_gradient_of_one(
    make_roles: MakeRoles, tiny_folder: Path, tmp_path: Path, reduction: str
) -> None:
    server()
    start_processes(_rank, (str(tmp_path), str(tiny_folder), reduction), nprocs=2, start_method="forkserver")
    metrics, expected = outcome(make_roles(80, reduction=reduction)["main"], batch())
    assert metrics is not None
    assert expected
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.pop("idle") == (None, [])
        for name, (own, gradient) in found.items():
            assert own == pytest.approx(metrics, rel=1e-10), name
            torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12, msg=name)
