"""The arms of the lag benchmark are settings that exist, and its records and table add up."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from benchmarks.paper import lag
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.records.journal import write_groups
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Score, Trajectory


@pytest.mark.parametrize("arm", lag.ARMS)
def test_an_arm_changes_the_searcher_and_nothing_else(root: Path, monkeypatch: pytest.MonkeyPatch, arm: str) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    plain, changed = (make_cli([*lag.TEAM, *options], run=False).model.roles for options in ((), lag.ARMS[arm]))
    assert changed["main"] == plain["main"]
    searcher = changed["searcher"]
    assert searcher.lag == (int(arm.split()[1].strip(",")) if arm.startswith("lag") else 0)
    assert searcher.queue == (lag.QUEUE if arm.startswith("queue") else None)
    assert searcher.objective.correction == ("none" if "uncorrected" in arm else "ratio")


def test_a_record_has_the_mean_reward_of_every_step(tmp_path: Path) -> None:
    for step, rewards in enumerate(([0.0, 1.0], [0.5, 0.7])):
        rollouts = [
            Rollout(Trajectory("main", Key(step, 0, k, 0), ""), scores={0: Score(1.0, total=reward)})
            for k, reward in enumerate(rewards)
        ]
        write_groups(tmp_path / "journal", step, [Group(Question("q", "", ()), rollouts)], "train")
    with SummaryWriter(tmp_path / "tensorboard") as writer:
        for step, value in enumerate((0.25, 0.75)):
            writer.add_scalar("searcher/mismatch", value, step)
            writer.add_scalar("searcher/clip_fraction", value / 2, step)
    results = {"before": {"exact_match": 0.25}, "after": {"exact_match": 0.5}, "seconds": {"fit": 9.0}}
    found = lag.record(tmp_path, results)
    assert found == {
        "rewards": pytest.approx([0.5, 0.6]),
        "mismatch": 0.5,
        "clip_fraction": 0.25,
        "rollouts_per_step": 2,
        "seconds": 9.0,
        "before": 0.25,
        "after": 0.5,
    }


def test_the_table_and_the_picture_are_of_all_seeds(tmp_path: Path) -> None:
    same = {"rollouts_per_step": 64, "before": 0.4, "mismatch": 0.002, "clip_fraction": 0.01}
    seeds = [
        {"seed": seed, "rewards": [0.1, 0.2, *[value] * 3], **same, "after": value}
        for seed, value in enumerate((0.5, 0.7))
    ]
    synchronised = [{**one, "rewards": [0.2, 0.3, *[0.75] * 3]} for one in seeds]
    *_, line = lag.table({"lag 0": synchronised, "lag 2": seeds}).splitlines()
    apart = "-0.130 | -0.190 to -0.070"
    assert line == f"| lag 2 | 2 | 40.0% | 60.0% | 50.0% to 70.0% | {apart} | 0.0020 | 1.00% |"
    lag.draw({"lag 0": seeds, "lag 2": seeds, "queue, uncorrected": seeds}, tmp_path / "reward.png")
    assert (tmp_path / "reward.png").read_bytes().startswith(b"\x89PNG")


def test_differences_are_within_a_seed() -> None:
    ours = [{"seed": seed, "rewards": [0.5 + seed, 0.75 + seed]} for seed in (0, 1, 2)]
    theirs = [{"seed": seed, "rewards": [0.25 + seed, 1.0 + seed]} for seed in (2, 0)]
    assert lag.differences(ours, theirs) == [[0.25, -0.25]] * 2
