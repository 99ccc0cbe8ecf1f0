"""Every argument of Lightning's Trainer: refused by name in a dry run too, or shown to work by a test."""

from __future__ import annotations

import ast
import datetime
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.modules.trainer_keys import RULES, refuse_keys
from tests.support.team_file import write_team_file

pytestmark = pytest.mark.usefixtures("own_argv")

HERE = "tests/modules/test_trainer_keys.py::"
NEUTRAL = {
    "benchmark": True,
    "detect_anomaly": True,
    "deterministic": True,
    "enable_autolog_hparams": False,
    "enable_model_summary": True,
    "inference_mode": False,
    "log_every_n_steps": 3,
    "logger": False,
    "profiler": "simple",
    "use_distributed_sampler": False,
}
"""Keys and values under which the same is trained."""
WORKS = {
    "callbacks": HERE + "test_early_stopping_stops_at_any_interval",
    "default_root_dir": HERE + "test_the_folder_of_a_run_is_the_runs",
    "devices": "tests/test_ranks.py::test_two_ranks_train_what_one_process_makes_of_their_journal",
    "enable_progress_bar": HERE + "test_early_stopping_stops_at_any_interval",
    "limit_predict_batches": "tests/commands/test_fit.py::test_validate_and_predict_read_a_checkpoint",
    "limit_test_batches": HERE + "test_batches_of_held_out_questions_can_be_limited",
    "limit_val_batches": HERE + "test_batches_of_held_out_questions_can_be_limited",
    "max_steps": "tests/commands/test_fit.py::test_fit_writes_everything_it_promises",
    "max_time": HERE + "test_a_run_ends_when_its_time_is_over_and_can_go_on",
    "num_nodes": "tests/test_ranks.py::test_two_ranks_train_what_one_process_makes_of_their_journal",
    "num_sanity_val_steps": "tests/commands/test_fit.py::test_fit_writes_everything_it_promises",
    "plugins": "tests/distributed/test_slurm_step.py::test_a_role_meets_on_the_first_node_of_its_step",
    **dict.fromkeys(NEUTRAL, HERE + "test_keys_that_change_nothing_change_nothing"),
}
REFUSED: dict[str, list[Any]] = {
    "accelerator": ["tpu"],
    "accumulate_grad_batches": [2],
    "barebones": [True],
    "check_val_every_n_epoch": [2],
    "enable_checkpointing": [False],
    "fast_dev_run": [True, 2],
    "gradient_clip_algorithm": ["norm", "value"],
    "gradient_clip_val": [1.0, 0],
    "limit_train_batches": [2, 1, 0.5],
    "max_epochs": [1, 2],
    "min_epochs": [1, 2],
    "min_steps": [2],
    "model_registry": ["name"],
    "overfit_batches": [1, 0.5],
    "precision": ["bf16-true", "16-mixed", 64],
    "reload_dataloaders_every_n_epochs": [1],
    "strategy": ["ddp", "fsdp", "deepspeed"],
    "sync_batchnorm": [True],
    "val_check_interval": ["00:00:10:00", datetime.timedelta(seconds=1)],
}
"""Values that are refused; others of the same keys may work."""


def test_every_trainer_key_is_refused_or_has_a_test(root: Path) -> None:
    keys = set(inspect.signature(Trainer).parameters)
    assert keys == REFUSED.keys() | WORKS.keys(), "a key is missing here, or is none of Lightning's any more"
    assert RULES.keys() == REFUSED.keys()
    for key, test in WORKS.items():
        path, _, name = test.partition("::")
        functions = [
            node.name for node in ast.parse((root / path).read_text()).body if isinstance(node, ast.FunctionDef)
        ]
        assert name in functions, f"{key}: {test}"


def test_every_trainer_key_that_cannot_hold_is_refused_by_name() -> None:
    for key, values in REFUSED.items():
        for value in values:
            with pytest.raises(ConfigurationError, match=rf"trainer\.{key} is .*HINT: \w+"):
                refuse_keys({key: value})


def test_every_trainer_key_may_have_its_default() -> None:
    refuse_keys({key: parameter.default for key, parameter in inspect.signature(Trainer).parameters.items()})


ONE_OF_EACH = [(key, values[0]) for key, values in REFUSED.items()]


@pytest.mark.parametrize(
    ("key", "value"),
    [pytest.param(*one, marks=[] if index in (1, 2) else [pytest.mark.slow]) for index, one in enumerate(ONE_OF_EACH)],
)
def test_every_trainer_key_is_refused_by_commands(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], key: str, value: object
) -> None:
    team = write_team_file(tmp_path, tiny)
    text = value if isinstance(value, str) else json.dumps(value)
    for dry in (["--dry_run"], []):
        with pytest.raises(SystemExit) as stopped:
            main(["fit", "--config", str(team), *dry, f"--trainer.{key}={text}"])
        assert stopped.value.code == 2
        assert f"mgrpo: error: trainer.{key} is " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def trained(folder: Path, tiny: Path, *options: str, **trainer: Any) -> dict[str, Any]:
    """The last checkpoint of a fit."""
    folder.mkdir(exist_ok=True)
    main(["fit", "--config", str(write_team_file(folder, tiny, **trainer)), *options])
    last = max((folder / "runs" / "toy" / "checkpoints").glob("*.ckpt"))
    state = torch.load(last, weights_only=True)
    assert isinstance(state, dict)
    return state


def test_keys_that_change_nothing_change_nothing(tmp_path: Path, tiny: Path) -> None:
    one, other = trained(tmp_path / "one", tiny), trained(tmp_path / "other", tiny, **NEUTRAL)
    torch.use_deterministic_algorithms(False)
    for role, values in one["roles"].items():
        for name, tensor in values["adapter"].items():
            assert torch.equal(other["roles"][role]["adapter"][name], tensor), name


def test_batches_of_held_out_questions_can_be_limited(tmp_path: Path, tiny: Path) -> None:
    few = "--data.validation.per_batch=1"
    for limit, expected in ((0, []), (0.5, [2])):
        state = trained(tmp_path / str(limit), tiny, few, limit_val_batches=limit, max_steps=1)
        assert [result["questions"] for result in state["validation_results"]] == expected
    cli = make_cli(["--config", str(write_team_file(tmp_path, tiny, limit_test_batches=1)), few], run=False)
    cli.trainer.test(cli.model, cli.datamodule)
    assert [result["questions"] for result in cli.model.validation_results] == [1]


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_validation_that_would_ask_nothing_is_refused(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    limit = f"limit_{'val' if command == 'validate' else 'test'}_batches"
    settings: dict[str, Any] = {limit: 0}
    with pytest.raises(SystemExit) as stopped:
        main([command, "--config", str(write_team_file(tmp_path, tiny, **settings))])
    assert stopped.value.code == 2
    assert f"trainer.{limit} is 0: no question would be asked. HINT" in capsys.readouterr().err


def test_a_run_ends_when_its_time_is_over_and_can_go_on(tmp_path: Path, tiny: Path) -> None:
    main(["fit", "--config", str(write_team_file(tmp_path, tiny, max_time={"seconds": 0}, limit_val_batches=0))])
    assert not list((tmp_path / "runs" / "toy" / "checkpoints").glob("*"))
    assert trained(tmp_path, tiny, limit_val_batches=0, max_steps=1)["num_steps"] == 1


STOPPER = {
    "class_path": "lightning.pytorch.callbacks.EarlyStopping",
    "init_args": {"monitor": "val/accuracy", "patience": 1, "mode": "max", "min_delta": 2.0},
}


@pytest.mark.parametrize(("interval", "end"), [(1, 2), pytest.param(0.25, 4, marks=pytest.mark.slow)])
def test_early_stopping_stops_at_any_interval(tmp_path: Path, tiny: Path, interval: float, end: int) -> None:
    settings = {"max_steps": 8, "val_check_interval": interval, "callbacks": [STOPPER]}
    assert trained(tmp_path, tiny, **settings)["num_steps"] == end


@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"val_check_interval": 1, "limit_val_batches": 0}, marks=pytest.mark.slow)]
)
def test_early_stopping_that_would_never_look_is_refused(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any]
) -> None:
    team = write_team_file(tmp_path, tiny, callbacks=[STOPPER], **settings)
    for dry in (["--dry_run"], []):
        with pytest.raises(SystemExit) as stopped:
            main(["fit", "--config", str(team), *dry])
        assert stopped.value.code == 2
        assert "EarlyStopping needs a validation" in capsys.readouterr().err


def test_the_early_stopping_of_the_guide_is_read(root: Path, tmp_path: Path, tiny: Path) -> None:
    guide = (root / "docs" / "team_file.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(trainer:\n  val_check_interval.*?)```", guide, re.DOTALL)
    (tmp_path / "stopping.yaml").write_text(block)
    files = [str(write_team_file(tmp_path, tiny, max_steps=20)), str(tmp_path / "stopping.yaml")]
    trainer = make_cli([word for file in files for word in ("--config", file)], run=False).trainer
    (stopper,) = trainer.early_stopping_callbacks
    assert isinstance(stopper, EarlyStopping)
    assert (stopper.monitor, stopper.patience, trainer.val_check_interval) == ("val/accuracy", 3, 10)


def test_an_interval_beyond_the_run_is_refused(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(write_team_file(tmp_path, tiny, val_check_interval=9)), "--dry_run"])
    assert "trainer.val_check_interval is 9 in a run of 4 steps" in capsys.readouterr().err


def test_the_folder_of_a_run_is_the_runs(tmp_path: Path, tiny: Path) -> None:
    team = write_team_file(tmp_path, tiny)
    content = yaml.safe_load(team.read_text())
    content["trainer"]["default_root_dir"] = "elsewhere"
    team.write_text(yaml.safe_dump(content))
    trainer = make_cli(["--config", str(team)], run=False).trainer
    assert trainer.default_root_dir == str(tmp_path / "runs" / "toy")
