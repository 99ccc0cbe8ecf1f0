"""Rates over ranks: a mean is that of all ranks and belongs to its name, whatever each of them has seen."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from mgrpo_lightning.modules.play_metrics import MeanMetrics, observe_play, play_counts, play_metrics
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Call, Group, Key, Rollout, Score, Segment, Span, Trajectory
from mgrpo_lightning.roles.config import RoleConfig, rewarded
from tests.support.started import server

NAMES = {
    0: ["main/reward", "calls", "searcher/reward", "failed"],
    1: ["failed", "searcher/reward", "main/reward", "calls"],
}
SEEN = {
    0: [("calls", 1.0), ("calls", 2.0), ("main/reward", 0.5)],
    1: [("calls", 6.0), ("searcher/reward", 0.25)],
}
"""Nobody called the searcher on rank 0; nothing failed anywhere."""


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    where = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", where, rank=rank, world_size=2, timeout=timedelta(seconds=30))
    means = MeanMetrics(NAMES[rank])
    for name, value in SEEN[rank]:
        means.add(name, value)
    Path(folder, f"{rank}.json").write_text(json.dumps([means.take(), means.take()]))
    dist.destroy_process_group()


def test_every_rank_computes_the_same_means_under_the_same_names(tmp_path: Path) -> None:
    server()
    start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="forkserver")
    for rank in (0, 1):
        (means, counts), afterwards = json.loads((tmp_path / f"{rank}.json").read_text())
        assert means == pytest.approx({"calls": 3.0, "main/reward": 0.5, "searcher/reward": 0.25})
        assert list(means) == sorted(means)
        assert counts == {"calls": 3, "failed": 0, "main/reward": 1, "searcher/reward": 1}
        assert afterwards == [{}, dict.fromkeys(counts, 0)]


def test_delegations_are_calls_of_roles_and_calls_are_those_of_tools_too() -> None:
    main = RoleConfig("pocket", calls=["searcher"])
    roles = rewarded({"main": main, "searcher": RoleConfig("pocket", tools=["search"])})
    read = [Segment([Span("observation", (1,))])]
    delegation = Call(0, "searcher", {"task": "Where?"}, "there", invocation=1)
    asked = Trajectory("main", Key(0, 0, 0, 0), "Where?", segments=read, calls=[delegation])
    search = Call(0, "search", {"query": "where"}, "a page")
    found = Trajectory("searcher", Key(0, 0, 0, 1), "Where?", segments=read, calls=[search] * 3)
    found.parent = 0
    alone = Trajectory("main", Key(0, 0, 1, 0), "Where?", segments=read)
    scores = {0: Score(1.0), 1: Score(1.0)}
    group = Group(Question("q", "Where?", ("there",)), [Rollout(asked, [found], scores), Rollout(alone, [], scores)])
    metrics = play_metrics(roles)
    observe_play(metrics, [group], roles)
    means, _ = metrics.take()
    assert means["delegations_per_rollout"] == 1 / 2
    assert means["calls_per_rollout"] == (1 + 3) / 2


def test_counts_are_those_of_what_was_played_here_whatever_could_be_scored() -> None:
    spans = [Span("observation", (1, 2)), Span("action", (3, 4, 5), (-0.5, -0.5, -0.5))]
    main = Trajectory("main", Key(0, 0, 0, 0), "Where?", segments=[Segment(spans)])
    main.calls = [Call(0, "search", {}, "no such tool", failed=True), Call(0, "searcher", {}, "there", invocation=1)]
    sub = Trajectory("searcher", Key(0, 0, 0, 1), "Where?", segments=[Segment(spans)])
    sub.parent = 0
    rollout = Rollout(main, [sub], {0: Score(1.0), 1: Score(1.0, failed=True)})
    group = Group(Question("q", "Where?", ("there",)), [rollout])
    counts = {"main/trajectories": 1, "searcher/trajectories": 1, "critic/trajectories": 0}
    assert play_counts([group], ["main", "searcher", "critic"], sampled=True) == {
        **counts,
        "call_failures": 1,
        "unscored": 1,
        "sampled_tokens": 6,
    }
    assert "sampled_tokens" not in play_counts([group], ["main"], sampled=False)
    elsewhere = Trajectory("searcher", Key(0, 0, 0, 1), "Where?")
    rollout.subs = [elsewhere]
    assert play_counts([group], ["main"], sampled=True)["sampled_tokens"] == 3
