"""Every callback in a real Trainer: fit, resume, validate."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mgrpo_lightning.callbacks import AdapterExport, CollapseAlarm, Results, RolloutLog, TeamProgress
from mgrpo_lightning.callbacks.curve import draw_curve
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.adapter_folder import NamedBase, TrainedAdapter
from mgrpo_lightning.records.journal import read_groups
from tests.callbacks.fakes import ROLES, FakeData, FakeTeam, make_record, write_fake

WRITE = "mgrpo_lightning.callbacks.adapter_export.write_adapter"


def make_trainer(root: Path, *, steps: int, **changes: Any) -> Trainer:
    """As ``mgrpo fit`` makes it."""
    return Trainer(
        max_steps=steps,
        max_epochs=1,
        default_root_dir=root,
        accelerator="cpu",
        num_sanity_val_steps=-1,
        log_every_n_steps=1,
        enable_model_summary=False,
        logger=TensorBoardLogger(root, name="", version="tensorboard", default_hp_metric=False),
        callbacks=[
            TeamProgress(),
            RolloutLog(),
            CollapseAlarm(),
            AdapterExport(**changes),
            Results(),
            ModelCheckpoint(
                root / "checkpoints", filename="step={step:06d}", auto_insert_metric_name=False, every_n_train_steps=1
            ),
        ],
    )


@pytest.fixture(scope="module", autouse=True)
def no_weights() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WRITE, write_fake)
        yield


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps."""
    root = tmp_path_factory.mktemp("run")
    make_trainer(root, steps=4).fit(FakeTeam(), datamodule=FakeData(steps=4))
    return root


def results_of(root: Path) -> dict[str, Any]:
    """What results.json holds."""
    results: dict[str, Any] = json.loads((root / "results.json").read_text(encoding="utf-8"))
    return results


def test_results_hold_before_and_after_and_existing_paths(fitted: Path) -> None:
    results = results_of(fitted)
    assert (results["before"]["step"], results["before"]["exact_match"]) == (0, 0.25)
    assert (results["after"]["step"], results["after"]["exact_match"]) == (4, pytest.approx(0.65))
    assert results["after"]["questions"] == 300
    assert len(results["history"]) == 2
    assert results["steps"] == 4
    assert results["seconds"]["fit"] > 0
    assert set(results["paths"]) == {"tensorboard", "adapters", "rollouts", "checkpoint", "learning_curve"}
    assert all(Path(path).exists() for path in results["paths"].values())


def test_the_learning_curve_is_a_picture(fitted: Path) -> None:
    assert (fitted / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_every_role_is_exported_once_more_at_the_end(fitted: Path) -> None:
    assert (fitted / "adapters/main/adapter_config.json").read_text(encoding="utf-8") == "main 4"
    assert (fitted / "adapters/searcher/adapter_config.json").read_text(encoding="utf-8") == "searcher 4"


def test_an_export_says_how_the_role_is_played_and_what_the_team_reached(fitted: Path) -> None:
    role = json.loads((fitted / "adapters/main/role.json").read_text(encoding="utf-8"))
    assert [tool["function"]["name"] for tool in role["tools"]] == role["calls"] == ["searcher"]
    assert '"name": "searcher"' in role["messages"][0]["content"]
    assert role["limits"]["turns"] == ROLES["main"].limits.turns
    assert role["load"]["quantization_config"]["bnb_4bit_quant_type"] == "nf4"
    card = (fitted / "adapters/main/README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card.split("---")[1]
    assert "| level | questions | before | after 4 steps |" in card
    assert "| all | 300 | 12.5% | 32.5% |" in card
    assert "tests.support.toy.ToyTask" in card


def test_the_journal_has_every_step_and_whole_validation_runs(fitted: Path) -> None:
    names = sorted(path.name for path in (fitted / "journal").iterdir())
    assert names == [f"step-{step:06d}.parquet" for step in range(4)] + [
        "validation-000000.parquet",
        "validation-000004.parquet",
    ]
    assert [len(read_groups(fitted / "journal" / name)) for name in names] == [2, 2, 2, 2, 4, 4]


def test_the_journal_tells_what_the_update_made_of_each_trajectory(fitted: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(fitted / "journal/step-000002.parquet").to_pydict()
    mains = [i for i, role in enumerate(table["role"]) if role == "main"]
    assert [table["advantage"][i] for i in mains] == [0.5] * 4
    assert [table["coefficient"][i] for i in mains] == [0.25] * 4


def test_rollouts_are_readable_in_tensorboard(fitted: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(fitted / "tensorboard")).Reload()
    tags = set(events.Tags()["tensors"])
    assert {"train/rollout_0/text_summary", "train/rollout_1/text_summary", "validate/rollout_0/text_summary"} <= tags
    (text,) = events.Tensors("train/rollout_0/text_summary")[0].tensor_proto.string_val
    assert text.decode().startswith("    main: ")


def test_calls_and_spread_are_logged_by_role(fitted: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(fitted / "tensorboard")).Reload()
    logged = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for role in ROLES:
        assert logged[f"{role}/calls_per_rollout"] == [1.0] * 4
        assert logged[f"{role}/reward_std"] == [0.25] * 4  # one group with spread 0.5, one without
    assert logged["main/reward"] == [0.0, 0.25, 0.5, 0.75]


def test_checkpoints_with_the_callbacks_states_load_without_unpickling_code(fitted: Path) -> None:
    (path,) = (fitted / "checkpoints").glob("*.ckpt")
    states = torch.load(path, weights_only=True)["callbacks"]
    assert {"Results", "CollapseAlarm"} <= set(states)
    assert [step for step, _ in states["Results"]["rewards"]["main"]] == [1, 2, 3, 4]


def test_a_resumed_run_keeps_before_seconds_and_the_curve(tmp_path: Path) -> None:
    make_trainer(tmp_path, steps=2).fit(FakeTeam(), datamodule=FakeData(steps=4))  # stops within its epoch
    (path,) = (tmp_path / "checkpoints").glob("*.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["Results"]["seconds"] = 1000.0
    torch.save(checkpoint, path)
    make_trainer(tmp_path, steps=4).fit(FakeTeam(), datamodule=FakeData(steps=4), ckpt_path=path)
    results = results_of(tmp_path)
    assert (results["before"]["step"], results["after"]["step"]) == (0, 4)
    assert results["seconds"]["fit"] > 1000
    (path,) = (tmp_path / "checkpoints").glob("step=000004.ckpt")
    rewards = torch.load(path, weights_only=True)["callbacks"]["Results"]["rewards"]
    assert [step for step, _ in rewards["main"]] == [1, 2, 3, 4]


def test_validation_alone_adds_its_record_and_its_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(tmp_path, steps=1).fit(FakeTeam(), datamodule=FakeData(steps=1))
    fit = results_of(tmp_path)
    before = (tmp_path / "journal/validation-000000.parquet").read_bytes()
    capsys.readouterr()
    make_trainer(tmp_path, steps=1).validate(FakeTeam(), datamodule=FakeData(steps=1))
    results = results_of(tmp_path)
    assert results.pop("validate")["exact_match"] == 0.25
    assert results == fit
    assert (tmp_path / "journal/validation-000000.parquet").read_bytes() == before
    assert (tmp_path / "journal/validate/validation-000000.parquet").exists()
    printed = capsys.readouterr().out
    assert "Held-out accuracy" in printed
    assert "results.json" in printed


def test_without_a_terminal_each_step_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(tmp_path, steps=2).fit(FakeTeam(), datamodule=FakeData(steps=2))
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    rest = "valid 50%, zero-advantage 12%"
    tail = "1.50 delegations a rollout | play 2.0 s, update 1.0 s"
    assert steps == [
        f"step 1/2 | main: reward 0.00, {rest} | searcher: reward 0.00, {rest} | {tail}",
        f"step 2/2 | main: reward 0.25, {rest} | searcher: reward 0.25, {rest} | {tail}",
    ]
    assert sum(line.startswith("held out at step 0 ") for line in lines) == 1
    assert sum(line.startswith("held out at step 2 ") for line in lines) == 1


def test_the_run_ends_with_the_table_and_every_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(tmp_path, steps=2).fit(FakeTeam(), datamodule=FakeData(steps=2))
    closing = capsys.readouterr().out.split("Held-out accuracy", 1)[1]
    assert "gain" in closing
    for path in (*results_of(tmp_path)["paths"].values(), str(tmp_path / "results.json")):
        assert path in closing


def test_adapters_are_exported_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[str] = []
    earlier: list[Path | None] = []

    def write(adapter: TrainedAdapter, folder: Path, base: NamedBase, *, like: Path | None) -> None:
        exported.append(f"{adapter.role} {adapter.updates}")
        earlier.append(like)

    monkeypatch.setattr(WRITE, write)
    make_trainer(tmp_path, steps=5, every_n_steps=2).fit(FakeTeam(), datamodule=FakeData(steps=5))
    assert exported == [f"{role} {step}" for step in (2, 4, 5) for role in ("main", "searcher")]
    folders = [tmp_path / "adapters" / role for role in ("main", "searcher")]
    assert earlier == [None, None, *folders, *folders], "tokenizers are written once"


def test_a_failed_export_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_trainer(tmp_path, steps=1).fit(FakeTeam(), datamodule=FakeData(steps=1))

    def fail(adapter: object, folder: Path, base: object, *, like: Path | None) -> None:
        (folder / "adapter_config.json").write_text("half", encoding="utf-8")
        raise RuntimeError("the writer died")

    monkeypatch.setattr(WRITE, fail)
    with pytest.raises(RuntimeError, match="the writer died"):
        make_trainer(tmp_path, steps=1).fit(FakeTeam(), datamodule=FakeData(steps=1))
    assert (tmp_path / "adapters/main/adapter_config.json").read_text(encoding="utf-8") == "main 1"
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == ["main", "searcher"]


@pytest.mark.parametrize("callback", [AdapterExport, RolloutLog])
def test_an_interval_below_one_is_refused(callback: type) -> None:
    with pytest.raises(ConfigurationError, match="every_n_steps is 0"):
        callback(every_n_steps=0)


def test_a_thinned_journal_is_refused_at_once_where_a_role_would_need_the_whole(tmp_path: Path) -> None:
    team = FakeTeam()
    team.roles = {**ROLES, "searcher": replace(ROLES["searcher"], lag=1)}
    team.trained_roles = ["main", "searcher"]
    with pytest.raises(ConfigurationError, match=r"every_n_steps is 2, but role 'searcher' has a lag.*HINT: set it"):
        RolloutLog(every_n_steps=2).on_fit_start(Trainer(logger=False), team)
    RolloutLog(every_n_steps=1).on_fit_start(Trainer(logger=False), team)
    team.trained_roles = ["main"]
    RolloutLog(every_n_steps=2).on_fit_start(Trainer(logger=False), team)


def test_the_curve_is_that_of_the_task_s_own_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Axes] = []

    def keep(figure: Figure, path: Path, **_: object) -> None:
        drawn.append(figure.axes[0])
        path.touch()

    monkeypatch.setattr(Figure, "savefig", keep)
    records = [make_record(0, 0.5), {**make_record(6, 0.75), "accuracy": None}]
    draw_curve(tmp_path / "curve.png", records, {})
    (axes,) = drawn
    assert axes.get_title() == "Held-out accuracy"
    values = list(axes.lines[-1].get_ydata())  # type: ignore[arg-type]
    assert values == [0.25, pytest.approx(math.nan, nan_ok=True)], "a quarter, whatever exact match says"
