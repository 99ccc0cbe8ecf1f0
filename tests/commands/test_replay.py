"""``mgrpo replay``: a run's updates come out of its journal again, bitwise; with other settings, other ones do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from mgrpo_lightning.commands.replay import kept, replay
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError, DataError
from tests.support.teams import Team

pytestmark = pytest.mark.usefixtures("own_argv")

STEPS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, root: Path, team: Team) -> Path:
    """A finished run under the schedule that cannot be played again the same way."""
    folder = tmp_path_factory.mktemp("runs")
    options = ["--trainer.limit_val_batches=0", "--checkpoint.save_top_k=-1", "--data.alignment.slots=3"]
    options += ["--data.schedule=eager", "--data.rollouts_per_query=8"]
    options += [f"--model.roles.{role}.sampling.temperature=1.2" for role in ("main", "searcher")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("sys.argv", ["mgrpo"])
        main(team.command("fit", folder, "run", *options))
    return folder / "run"


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    main(["replay", *map(str, words)])
    return " ".join(capsys.readouterr().out.split())


def test_all_updates_give_bitwise_the_adapters_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, run)
    for role in ("main", "searcher"):
        assert f"{role}: bitwise equal to {kept(run)[STEPS]}" in out


def test_one_update_from_the_checkpoint_before_it_or_from_the_start(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_all = said(capsys, run, "--step", 1)
    assert f"main: bitwise equal to {kept(run)[2]}" in with_all
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "checkpoints" / "step=000001.ckpt").unlink()
    without = said(capsys, copy, "--step", 1)
    assert without.replace(str(copy), str(run)) == with_all


def test_other_settings_give_another_update_and_leave_the_run_alone(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    start = kept(run)[1]
    recorded = replay(run, start=start, until=2)
    assert recorded.metrics["main/trained_tokens"] > 0, "nothing was learned"
    reward = replay(run, start=start, until=2, settings=["--model.roles.searcher.reward={format: 0.0, expert: 1.0}"])
    for role, same in (("main", True), ("searcher", False)):
        pairs = [(reward.adapters[role][name], value) for name, value in recorded.adapters[role].items()]
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs) is same
    out = said(capsys, run, "--step", 1, "--set", "data.alignment.mode=duplicate_drop")
    assert "recorded ┃ changed" in out
    assert "main/adapter, largest change │ │ 0 │" in out
    assert re.search(r"searcher/adapter, largest change │ │ (?!0 │)", out)
    assert files == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_what_is_missing_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a run folder.*HINT: give the folder that `mgrpo fit` wrote"):
        replay(tmp_path, start=None, until=1)
    for name in ("apart/store", "apart/main"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "apart" / "main" / "config.yaml").touch()
    with pytest.raises(ConfigurationError, match=r"HINT: each role was trained .*: give .*apart/main\."):
        replay(tmp_path / "apart", start=None, until=1)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "journal" / "step-000001.parquet").unlink()
    with pytest.raises(DataError, match=r"journal .*copy/journal has no step 1.*HINT: .*every_n_steps: 1"):
        replay(copy, start=None, until=2)


def test_a_difference_ends_with_an_exit_code(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    path = kept(copy)[STEPS]
    state = torch.load(path, weights_only=True)
    next(iter(state["roles"]["searcher"]["adapter"].values())).add_(1.0)
    torch.save(state, path)
    with pytest.raises(SystemExit) as exit_:
        said(capsys, copy)
    assert exit_.value.code == 1
    out = capsys.readouterr().out
    assert "main: bitwise equal" in out
    assert "searcher: differs by up to 1 from" in out
