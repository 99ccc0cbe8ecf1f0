"""The command line on a tiny team: a whole fit, resume, validate, predict, and what users get wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.trainer.states import TrainerFn

from mgrpo_lightning.algorithm.config import SUB_REWARD
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.data.playing import Playing
from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.persistence.run_lock import RunLock
from mgrpo_lightning.records.journal import read_groups
from mgrpo_lightning.roles.config import RoleConfig
from tests.support.team_file import write_team_file
from tests.support.toy import ToyTask

pytestmark = pytest.mark.usefixtures("own_argv")


@pytest.fixture
def team(tmp_path: Path, tiny: Path) -> Path:
    return write_team_file(tmp_path, tiny, num_sanity_val_steps=-1)


def checkpoint(folder: Path, step: int, name: str = "toy") -> dict[str, Any]:
    path = folder / "runs" / name / "checkpoints" / f"step={step:06d}.ckpt"
    loaded = torch.load(path, weights_only=True)
    assert isinstance(loaded, dict)
    return loaded


def adapters(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {f"{role}/{n}": t for role, values in state["roles"].items() for n, t in values["adapter"].items()}


def test_fit_writes_everything_it_promises(team: Path, tmp_path: Path) -> None:
    main(["fit", "--config", str(team)])
    run = tmp_path / "runs" / "toy"
    results = json.loads((run / "results.json").read_text())
    assert results["before"]["questions"] == results["after"]["questions"] == 4
    assert (run / "learning_curve.png").stat().st_size > 0
    assert (run / "config.yaml").exists()
    assert list((run / "tensorboard").glob("events*"))
    assert sorted(p.name for p in (run / "adapters").iterdir()) == ["main", "searcher"]
    groups = read_groups(run / "journal" / "step-000003.parquet")
    assert [len(group.rollouts) for group in groups] == [2, 2]
    state = checkpoint(tmp_path, 4)
    assert state["state_dict"] == {}
    assert sorted(state["roles"]) == ["main", "searcher"]
    assert all("lora" in name for name in adapters(state))


def test_resume_gives_bitwise_the_adapters_of_a_straight_run(team: Path, tmp_path: Path, tiny: Path) -> None:
    main(["fit", "--config", str(team)])
    straight = checkpoint(tmp_path, 4)
    other = tmp_path / "other"
    other.mkdir()
    resumed_file = write_team_file(other, tiny, num_sanity_val_steps=-1)
    arguments = ["fit", "--config", str(resumed_file), "--checkpoint.save_top_k=-1"]
    main(arguments)
    for step in (3, 4):
        (other / "runs" / "toy" / "checkpoints" / f"step={step:06d}.ckpt").unlink()
    main([*arguments, "--ckpt_path", "last"])
    resumed = checkpoint(other, 4)
    for name, tensor in adapters(straight).items():
        assert torch.equal(adapters(resumed)[name], tensor), name
    assert [r["step"] for r in resumed["validation_results"]] == [r["step"] for r in straight["validation_results"]]


def test_validate_and_predict_read_a_checkpoint(team: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--config", str(team)])
    (tmp_path / "runs" / "toy" / "results.json").unlink()
    main(["validate", "--config", str(tmp_path / "runs" / "toy" / "config.yaml"), "--ckpt_path", "last"])
    assert (tmp_path / "runs" / "toy" / "results.json").exists()
    capsys.readouterr()
    predict = ["predict", "--config", str(team), "--ckpt_path", "last", "--question", "word 3"]
    main(predict)
    assert "word 3" in capsys.readouterr().out
    main([*predict, "--trainer.limit_predict_batches=0"])
    assert "word 3" not in capsys.readouterr().out


def test_a_program_fits_with_the_objects_of_a_command_line(team: Path, tmp_path: Path) -> None:
    cli = make_cli(["--config", str(team), "--trainer.max_steps=1"], run=False)
    cli.trainer.fit(cli.model, cli.datamodule)
    run = tmp_path / "runs" / "toy"
    assert (run / "adapters" / "main").is_dir()
    main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", "last"])
    assert "validate" in json.loads((run / "results.json").read_text())


def test_a_validation_is_known_by_its_task(team: Path) -> None:
    def settings(*options: str) -> str:
        cli = make_cli(["--config", str(team), *options], run=False)
        cli.before_validate()
        assert isinstance(cli.datamodule.command.settings, str)
        return cli.datamodule.command.settings

    factbook = "--data.task=mgrpo_lightning.tasks.Factbook"
    assert settings() == settings("--data.validation.per_batch=2", "--trainer.max_steps=5")
    assert len({settings(), settings(factbook), settings(factbook, "--data.task.hops=[1]")}) == 3


def test_a_second_fit_in_a_folder_is_refused_before_it_writes(
    team: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "toy"
    lock = RunLock(run, "fit")
    lock.take()
    with pytest.raises(SystemExit) as refused:
        main(["fit", "--config", str(team)])
    assert refused.value.code == 2
    assert f"error: another fit writes into {run}: process {os.getpid()} on " in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["locks"]
    main(["validate", "--config", str(team)])
    lock.release()
    main(["fit", "--config", str(team)])


def test_a_command_that_sigterm_stops_is_not_done(
    team: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = Playing._score

    def terminated(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        scored(*arguments)

    monkeypatch.setattr(Playing, "_score", terminated)
    for command, hint in (("validate", "run the command again"), ("fit", "resume with --ckpt_path=last")):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--config", str(team), "--data.validation.per_batch=1"])
        assert stopped.value.code == 75
        assert f"stopped by SIGTERM. HINT: {hint}" in capsys.readouterr().err


def test_what_is_played_is_kept_while_an_answer_is_undecided(team: Path, tmp_path: Path) -> None:
    cli = make_cli(["--config", str(team), "--data.schedule=eager"], run=False)
    cli.before_validate()
    cli.trainer.state.fn = TrainerFn.VALIDATING
    cli.datamodule.trainer = cli.trainer
    cli.trainer.strategy.connect(cli.model)
    folder = tmp_path / "runs" / "toy" / "resume_logs"
    with cli.datamodule.resume_logs.held_out_log(0) as resume_log:
        assert resume_log is not None
    for undecided, kept in ((1, True), (0, False)):
        cli.model.validation_results = [{"undecided": undecided}]
        cli.after_validate()
        assert folder.exists() == kept


def test_a_run_goes_on_or_is_left_alone(team: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", "--config", str(team), "--checkpoint.save_top_k=-1"]
    main(arguments)
    folder = tmp_path / "runs" / "toy"

    def written() -> dict[Path, int]:  # but for the locks, which every command takes
        return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if "locks" not in p.parts}

    there = written()
    for start in ([], [f"--ckpt_path={folder / 'checkpoints' / 'step=000002.ckpt'}"]):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, *start])
        assert stopped.value.code == 2
        message = capsys.readouterr().err
        assert "already holds a run of 4 steps" in message
        assert "HINT: give --ckpt_path last to resume it" in message
    assert written() == there
    main([*arguments, f"--ckpt_path={folder / 'checkpoints' / 'step=000002.ckpt'}", "--run.name=fork"])
    ours, theirs = (adapters(checkpoint(tmp_path, 4, name)) for name in ("toy", "fork"))
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


def test_a_damaged_last_checkpoint_is_made_again(team: Path, tmp_path: Path) -> None:
    arguments = ["fit", "--config", str(team), "--checkpoint.save_top_k=-1"]
    main(arguments)
    whole = checkpoint(tmp_path, 4)
    damaged = tmp_path / "runs" / "toy" / "checkpoints" / "step=000004.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    main([*arguments, "--ckpt_path", "last"])
    again = adapters(checkpoint(tmp_path, 4))
    assert all(torch.equal(again[name], tensor) for name, tensor in adapters(whole).items())
    assert len(list(damaged.parent.iterdir())) == 4


def test_print_config_shows_overrides(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(team), "--run.name=other", "--run.seed=7", "--print_config"])
    assert stopped.value.code == 0
    assert "name: other" in capsys.readouterr().out


def test_a_dry_run_checks_and_shows_the_plan_but_writes_nothing(
    team: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(team), "--dry_run"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "searcher" in shown
    assert "optimizer" in shown
    assert not (tmp_path / "runs").exists()
    for option in ("chat_template=nope", "tools=[serch]", "base_model=no/such/folder"):
        with pytest.raises(SystemExit) as stopped:
            main(["fit", "--config", str(team), "--dry_run", f"--model.roles.searcher.{option}"])
        assert stopped.value.code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_run_for_a_gpu_is_planned_without_one_and_refused_otherwise(
    team: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, status in ((["--dry_run"], 0), ([], 2)):
        with pytest.raises(SystemExit) as stopped:
            main(["fit", "--config", str(team), "--trainer.accelerator=gpu", *options])
        assert stopped.value.code == status
    assert "mgrpo: error: No supported gpu backend found! HINT: check the trainer's settings" in capsys.readouterr().err


def nullable(block: type, place: str) -> Iterator[str]:
    """The keys of a block and of the blocks in it that may be null, with dots."""
    for name, hint in typing.get_type_hints(block).items():
        if type(None) in typing.get_args(hint):
            yield f"{place}.{name}"
        kinds = [kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)]
        for kind in kinds:
            yield from nullable(kind, f"{place}.{name}")  # type: ignore[arg-type]


class WordTask(ToyTask):
    """A task with a text that may be null."""

    def __init__(self, word: str | None = "a") -> None:
        self.word = word


def test_every_null_on_the_command_line_is_none(team: Path) -> None:
    content = yaml.safe_load(team.read_text())
    roles = content["model"]["roles"]
    endpoint = {"url": "http://localhost:1/v1", "model": "reader", "key_variable": "KEY"}
    roles["searcher"] |= {"slots": 3, "chat_template": "chatml", "endpoint": endpoint, "trainable": False}
    roles["searcher"]["adapter"] |= {"path": "nowhere"}
    team.write_text(yaml.safe_dump(content))
    keys = [key for key in nullable(RoleConfig, "roles.searcher") if key != "roles.searcher.endpoint"]
    assert {"roles.searcher.adapter.shared_with", "roles.searcher.endpoint.key_variable"} < set(keys)
    options = [f"--model.{key}=null" for key in keys]
    cli = make_cli(
        ["--config", str(team), *options, f"--data.task={WordTask.__module__}.WordTask", "--data.task.word=null"],
        run=False,
    )
    for key in keys:
        found: Any = cli.model
        for name in key.split("."):
            found = found[name] if isinstance(found, dict) else getattr(found, name)
        # where there is no reward, the paper's stands for it
        assert found == (SUB_REWARD if key == "roles.searcher.reward" else None), key
    assert cli.model.roles["main"].system_prompt == "main"
    assert cli.datamodule.task.word is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.roles.main.frobnicate=1"], "frobnicate"),
        (["--model.roles.main.calls=[sercher]"], "'sercher', which is not a role of this team"),
        (["--model.roles.searcher.tools=[serch]"], "'serch', which the task does not offer"),
        (["--model.roles.main.sampling.top_p=0.9", "--model.roles.main.objective.kind=mgrpo"], "top_p"),
        (["--model.roles.main.adapter.dropout=0.1", "--model.roles.main.objective.kind=mgrpo"], "dropout"),
        (["--model.roles.main.base_model=no/such/folder"], "no/such/folder"),
        (["--data.queries_per_step=0"], "queries_per_step is 0"),
        (["--trainer.max_steps=-1"], "max_steps is -1"),
        (["--ckpt_path=last"], "no checkpoint in"),
        (["--config=missing.yaml"], "missing.yaml"),
    ],
)
def test_mistakes_get_one_clear_error(
    team: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(team), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_of_another_team_is_refused(
    team: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "--config", str(team)])
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(team), "--ckpt_path=last", "--model.roles.main.adapter.rank=8"])
    assert "main" in capsys.readouterr().err


def test_a_step_that_diverges_is_not_kept(
    team: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["fit", "--config", str(team), "--checkpoint.save_top_k=-1"]
    words += ["--trainer.num_sanity_val_steps=0", "--trainer.limit_val_batches=0", "--trainer.max_steps=3"]
    with monkeypatch.context() as broken:
        rate = RoleModule.learning_rate
        broken.setattr(
            RoleModule,
            "learning_rate",
            lambda role, steps: math.inf if (role.name, role.policy.version) == ("searcher", 2) else rate(role, steps),
        )
        with pytest.raises(SystemExit) as stopped:
            main(words)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "role 'searcher'" in message
    assert "after its update 3 in step 2; the step is discarded. HINT: resume from the last checkpoint" in message
    run = tmp_path / "runs" / "toy"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step=000001.ckpt", "step=000002.ckpt"]
    assert not (run / "adapters").exists()
    main([*words, "--ckpt_path", "last"])
    assert all(tensor.isfinite().all() for tensor in adapters(checkpoint(tmp_path, 3)).values())
