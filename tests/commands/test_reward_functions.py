"""A fit with the user's reward functions: they are logged, kept in the journal, and not called by a replay."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mgrpo_lightning.algorithm.config import RewardConfig, RewardFunction
from mgrpo_lightning.algorithm.rewards import reward
from mgrpo_lightning.commands.replay import kept, replay
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.data.recorded import recorded_groups
from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.journal import read_groups
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.viewer.sources import Source
from tests.support import rewards
from tests.support.team_file import write_team_file
from tests.support.tiny import make_speaking_model

pytestmark = pytest.mark.usefixtures("own_argv")


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """The tiny team whose main has two functions, written in an order that is not that of their names."""
    path = write_team_file(tmp_path, make_speaking_model(tmp_path / "model"), objective="mgrpo", max_steps=2)
    content = yaml.safe_load(path.read_text())
    functions = {
        "wander": {"function": "tests.support.rewards.drifting", "weight": 0.3},
        "brevity": {"function": "tests.support.rewards.brevity", "weight": 0.2},
    }
    content["model"]["roles"]["main"]["reward"] = {"format": 0.1, "correct": 0.4, "functions": functions}
    content["trainer"] |= {"limit_val_batches": 0}
    content["data"]["rollouts_per_query"] = 4
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_values_are_logged_kept_and_replayed_bitwise(
    team: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewards.CALLED.clear()
    main(["fit", "--config", str(team), "--checkpoint.save_top_k=-1"])
    run = tmp_path / "runs" / "toy"
    called = len(rewards.CALLED)
    scores = [
        [
            rollout.scores[0]
            for group in read_groups(run / "journal" / f"step-{step:06d}.parquet")
            for rollout in group.rollouts
        ]
        for step in range(2)
    ]
    valid = [score for step in scores for score in step if score.format]
    assert called == len(valid) > 0
    weights = RewardConfig(
        format=0.1, correct=0.4, functions={"wander": RewardFunction("", 0.3), "brevity": RewardFunction("", 0.2)}
    )
    for score in valid:
        functions = {name: value for name, value in score.functions.items() if value is not None}
        assert list(functions) == ["brevity", "wander"]
        assert score.total == reward(weights, valid=True, correct=score.correct, functions=functions)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for name in ("wander", "brevity"):
        logged = [event.value for event in events.Scalars(f"main/reward_{name}")]
        means = [math.fsum(score.functions[name] or 0.0 for score in step) / len(step) for step in scores]
        assert logged == pytest.approx(means)
    capsys.readouterr()
    main(["replay", str(run)])
    assert f"main: bitwise equal to {kept(run)[2]}" in " ".join(capsys.readouterr().out.split())
    assert len(rewards.CALLED) == called, "a replay reads the values"
    changed = replay(run, start=None, until=1, settings=["--model.roles.main.reward.functions.wander.weight=0"])
    assert "main/reward_brevity" in changed.metrics
    assert "main/reward_wander" not in changed.metrics
    with pytest.raises(DataError, match=r"no values of the reward function 'other' of role 'main'.*HINT"):
        replay(
            run,
            start=None,
            until=1,
            settings=["--model.roles.main.reward.functions.other={function: tests.support.rewards.given, weight: 1}"],
        )
    assert Source(run).weighed["main"] == ["format", "correct", "brevity", "wander"]


def test_a_journal_without_functions_is_as_before(tmp_path: Path) -> None:
    """Weights that need no function rank what an older package wrote."""
    path = write_team_file(tmp_path, make_speaking_model(tmp_path / "model"), objective="mgrpo", max_steps=1)
    main(["fit", "--config", str(path), "--trainer.limit_val_batches=0"])
    run = tmp_path / "runs" / "toy"
    roles = {name: RoleConfig("x", reward=RewardConfig(format=1.0)) for name in ("main", "searcher")}
    (first, *_) = recorded_groups(run / "journal", 0, roles)
    assert all(score.total in (0.0, 1.0) for rollout in first.rollouts for score in rollout.scores.values())
    mine = RewardConfig(functions={"mine": RewardFunction("x.y", 0.5)})
    with pytest.raises(DataError, match="no values of the reward function 'mine'"):
        recorded_groups(run / "journal", 0, {**roles, "main": replace(roles["main"], reward=mine)})


def test_a_function_that_cannot_be_used_is_refused_by_a_dry_run(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                *("fit", "--config", str(team), "--dry_run"),
                "--model.roles.main.reward.functions.wander.function=tests.support.rewards.of_two",
            ]
        )
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "model.roles.main.reward.functions.wander.function is 'tests.support.rewards.of_two'" in error
    assert "needs the argument 'reference'" in error
