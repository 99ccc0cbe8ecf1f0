"""A run on two ranks: each plays its part of the queries, and together they train what one process would have made.

Two roles of two ranks each are left out unless asked for: pytest -m slow tests/test_ranks.py
"""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from mgrpo_lightning.commands.replay import differences, replay
from mgrpo_lightning.data.dataloaders import part_of
from mgrpo_lightning.distributed.ranks import refuse_apart
from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.journal import read_groups, training_files
from tests.support.started import Started, server
from tests.support.teams import Team
from tests.test_decoupled import ROLES, adapter, finish, trajectories

STEPS = 3
TWO = ("--trainer.accelerator=cpu", "--trainer.devices=2")


@pytest.mark.parametrize(("count", "ranks"), [(8, 2), (7, 3), (3, 3), (2, 3), (300, 7)])
def test_parts_are_all_queries_once(count: int, ranks: int) -> None:
    parts = [part_of(count, rank, ranks) for rank in range(ranks)]
    assert [query for part in parts for query in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_ranks_train_what_one_process_makes_of_their_journal(tmp_path: Path, team: Team) -> None:
    options = ("--data.queries_per_step=3", "--data.validation.questions=8", *TWO)
    said = Started(team.command("fit", tmp_path, "run", *options)).finish()
    run = tmp_path / "run"
    assert "sync_dist" not in said
    assert json.loads((run / "results.json").read_text())["after"]["questions"] == 8
    for paths in training_files(run / "journal").values():
        asked = [[group.rollouts[0].main.key.query for group in read_groups(path)] for path in paths]
        assert asked == [[0], [1, 2]]
    state = torch.load(run / "checkpoints" / f"step={STEPS:06d}.ckpt", weights_only=True)
    assert any(values["updates"] for values in state["roles"].values()), "nothing was learned"
    replayed = replay(run, start=None, until=STEPS, settings=["--trainer.devices=1"])
    found = differences(replayed.adapters, {role: values["adapter"] for role, values in state["roles"].items()})
    assert max(found.values()) < 5e-6, "sums of other parts, in float32, divided by their own size in AdamW"


def test_sigterm_on_one_rank_stops_all_behind_the_same_step(tmp_path: Path, team: Team) -> None:
    options = ("--trainer.max_steps=500", "--trainer.limit_val_batches=0", *TWO)
    process = Started(team.command("fit", tmp_path, "run", *options), module="tests.support.patient")
    while not (tmp_path / "run" / "checkpoints" / "step=000001.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    (other,) = [child for child in psutil.Process(process.pid).children() if "fit" in child.cmdline()]
    other.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75, process.said()
    told = process.said()
    assert re.search(r"stopped after step \d+ of 500, because of SIGTERM. HINT: resume with --ckpt_path=last", told)
    assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE


def _go_on(rank: int, folder: str, steps: tuple[int, int]) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        refuse_apart(steps[rank], torch.device("cpu"))
    except DataError as error:
        Path(folder, f"{rank}.txt").write_text(str(error))
    dist.destroy_process_group()


@pytest.mark.parametrize("steps", [(3, 3), (3, 2)])
def test_ranks_that_see_other_checkpoints_do_not_begin(tmp_path: Path, steps: tuple[int, int]) -> None:
    server()
    start_processes(_go_on, (str(tmp_path), steps), nprocs=2, start_method="forkserver")
    told = [path.read_text() for path in sorted(tmp_path.glob("*.txt"))]
    assert len(told) == (0 if steps[0] == steps[1] else 2)
    assert all("ranks resume from different steps, 2 to 3" in text for text in told)


@pytest.mark.slow
def test_roles_of_two_ranks_in_processes_of_their_own_are_bitwise_those_in_one(tmp_path: Path, team: Team) -> None:
    Started(team.command("fit", tmp_path / "coupled", "run", *TWO)).finish()
    finish([Started(team.command("fit", tmp_path, "run", "--role", role, *TWO)) for role in ROLES])
    for role in ROLES:
        one, other = adapter(tmp_path / "coupled" / "run", role, STEPS), adapter(tmp_path / "run" / role, role, STEPS)
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
        played, expected = trajectories(tmp_path / "run" / role, role), trajectories(tmp_path / "coupled" / "run", role)
        assert played.keys() == expected.keys()
        assert all(played[key][0].spans == trajectory.spans for key, (trajectory, _) in expected.items())
    assert (tmp_path / "run" / "store" / "writers" / "searcher-1").is_dir()
