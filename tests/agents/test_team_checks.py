"""Limits against each other and against the model, by name, in a dry run and before a fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from mgrpo_lightning.agents.team_checks import check_team, full_calls, positions, prompt_tokens
from mgrpo_lightning.algorithm.config import RewardConfig
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.tasks.base import Task
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model
from tests.support.toy import ToyTask

pytestmark = pytest.mark.usefixtures("own_argv")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), context=512)


SEARCHER = "--model.roles.searcher"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (f"{SEARCHER}.limits.context=16", r"searcher.limits.context is 16, too short for a prompt of \d+ tokens"),
        (f"{SEARCHER}.limits.new_tokens=250", r"searcher.limits.context is 256.* a turn of 250"),
        (f"{SEARCHER}.limits.observation=257", "searcher.limits.observation is 257, but context is 256"),
        (f"{SEARCHER}.limits.context=513", r"searcher.limits.context is 513, but .* has 512 positions"),
        (f"{SEARCHER}.lag=4", "searcher.lag is 4 in a run of 4 steps"),
        (
            f"{SEARCHER}.system_prompt={'much ' * 60}",
            r"searcher.limits.context is 256, too short for a prompt of \d+ tokens",
        ),
    ],
)
def test_limits_that_do_not_go_together_are_refused_by_name(
    tmp_path: Path, tiny: Path, option: str, message: str
) -> None:
    cli = make_cli(["--config", str(write_team_file(tmp_path, tiny)), option], run=False)
    model = cli.model
    with pytest.raises(ConfigurationError, match=rf"^model\.roles\.{message}.*HINT: (set|lower) "):
        check_team(model.roles, model.local_roles, ToyTask(), steps=4)


@pytest.mark.parametrize(
    "options",
    [["--model.roles.main.limits.context=16"], ["--model.roles.main.adapter.path=nowhere"], ["--ckpt_path=last"]],
)
def test_a_dry_run_refuses_what_a_fit_refuses(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    errors = []
    for dry in (["--dry_run"], []):
        with pytest.raises(SystemExit) as stopped:
            main(["fit", "--config", str(write_team_file(tmp_path, tiny)), *options, *dry])
        assert stopped.value.code == 2
        errors.append(capsys.readouterr().err.splitlines()[-1])
    assert errors[0] == errors[1]


def test_a_dry_run_refuses_the_folder_of_another_run(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    team = ["--config", str(write_team_file(tmp_path, tiny, max_steps=1, limit_val_batches=0))]
    main(["fit", *team])
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *team, "--dry_run"])
    assert stopped.value.code == 2
    assert "already holds a run of 1 step" in capsys.readouterr().err


def test_a_dry_run_shows_prompts_and_how_many_calls_fit(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    team = str(write_team_file(tmp_path, tiny))
    with pytest.raises(SystemExit):
        main(["fit", "--config", team, "--dry_run"])
    shown = capsys.readouterr().out
    model = make_cli(["--config", team], run=False).model
    seats = check_team(model.roles, model.roles, ToyTask(), steps=4)
    for name, seat in seats.items():
        ids, _ = seat.prompt("")
        assert prompt_tokens(seat) == len(ids)
        row = next(line for line in shown.splitlines() if name in line)
        assert f"{len(ids)} " in row
        assert f"{full_calls(seat)} of 4" in row
        length = len(ids)
        for _ in range(full_calls(seat)):  # at full length: turns and results as long as they may be
            length += seat.config.limits.new_tokens + seat.config.limits.observation
        assert length + seat.notice_tokens + seat.config.limits.new_tokens <= seat.config.limits.context


@pytest.mark.parametrize(
    ("rope", "most"),
    [
        ({}, 32),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, 128),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 4}, 32),
        ({"rope_type": "linear", "factor": 2.0}, 64),
    ],
)
def test_positions_are_those_that_the_config_scales_to(rope: dict[str, Any], most: int) -> None:
    extra = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if rope.get("rope_type") == "llama3" else {}
    config = LlamaConfig(
        max_position_embeddings=32, rope_parameters={"rope_theta": 1e4, **rope, **extra} if rope else None
    )
    assert positions(config) == most


@pytest.mark.parametrize("change", ["null", "{format: 0.1, correct_main: 0.9}"])
def test_a_role_without_a_reward_has_that_of_its_seat(tmp_path: Path, tiny: Path, change: str) -> None:
    options = ["--model.roles.main.reward=null", f"--model.roles.searcher.reward={change}"]
    roles = make_cli(["--config", str(write_team_file(tmp_path, tiny)), *options], run=False).model.roles
    assert roles["main"].weights == RewardConfig(format=0.1, correct=0.9)
    if change == "null":
        assert roles["searcher"].weights == RewardConfig(format=0.1, correct_main=0.4, expert=0.5)


class Unjudged(ToyTask):
    """A task that cannot say how well a report is."""

    expert = Task.expert


@pytest.mark.parametrize(
    ("option", "task", "message"),
    [
        ("searcher.reward.correct=0.5", ToyTask(), "searcher.reward.correct is 0.5, but it can never be earned"),
        ("main.reward.correct_main=0.5", ToyTask(), "main.reward.correct_main is 0.5, but it can never be earned"),
        ("searcher.reward.expert=0.3", Unjudged(), "searcher.reward.expert is 0.3, .*: the task has no expert"),
        ("main.reward={format: 0, correct: 0}", ToyTask(), "main.reward has no weight above 0"),
    ],
)
def test_a_weight_of_what_is_always_0_is_refused_by_name(
    tmp_path: Path, tiny: Path, option: str, task: Task, message: str
) -> None:
    team = str(write_team_file(tmp_path, tiny, objective="mgrpo"))
    model = make_cli(["--config", team, f"--model.roles.{option}"], run=False).model
    with pytest.raises(ConfigurationError, match=rf"^model\.roles\.{message}.*HINT: "):
        check_team(model.roles, model.local_roles, task, steps=4)
    check_team(model.roles, model.local_roles, task, steps=0)
