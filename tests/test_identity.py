"""What a checkpoint, an exported adapter or a journal belongs to: under another model it is refused, by its parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file

from mgrpo_lightning.commands.fit import MgrpoCLI, make_cli
from mgrpo_lightning.commands.replay import replay
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.persistence.checkpoints import last_checkpoint
from mgrpo_lightning.policy.identity import OF_A_START, PARTS
from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.records.journal import identity_of_file
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model

pytestmark = pytest.mark.usefixtures("own_argv")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a team file, its model, and a run of two steps."""
    folder = tmp_path_factory.mktemp("made")
    team = write_team_file(folder, make_tiny_model(folder / "model"), max_steps=2, limit_val_batches=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mgrpo"])
        main(["fit", "--config", str(team)])
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; it is found where the first one was made."""
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    for path in (copy / "team.yaml", copy / "runs" / "toy" / "config.yaml"):
        path.write_text(path.read_text().replace(str(made), str(copy)))
    return copy


def run_of(folder: Path) -> Path:
    return folder / "runs" / "toy"


def other_weights(folder: Path) -> None:
    state = load_file(path := folder / "model" / "model.safetensors")
    save_file({name: value * 1.001 for name, value in state.items()}, path, metadata={"format": "pt"})


def other_tokenizer(folder: Path) -> None:
    path = folder / "model" / "tokenizer.json"
    described = json.loads(path.read_text())
    described["model"]["merges"] = described["model"]["merges"][:-1]
    path.write_text(json.dumps(described))


ROLE = "--model.roles.searcher"
CHANGES: dict[str, tuple[Callable[[Path], None] | str, str]] = {
    "base_model": (other_weights, r"'\w{14} \(.*' and is '\w{14} \(.*'"),
    "quantization": ("--model.quantization=none", "'nf4' and is 'none'"),
    "compute_dtype": ("--model.compute_dtype=bfloat16", "'float32' and is 'bfloat16'"),
    "adapter.rank": (f"{ROLE}.adapter.rank=8", "'4' and is '8'"),
    "adapter.alpha": (f"{ROLE}.adapter.alpha=128", "'8' and is '128'"),
    "adapter.target_modules": (f"{ROLE}.adapter.target_modules=[q_proj]", r"and is '\[\"q_proj\"\]'"),
    "tokenizer": (other_tokenizer, r"'\w{48}' and is '\w{48}'"),
    "chat_template": (f"{ROLE}.chat_template=chatml_no_think", r"and is .*<think>.*"),
    "system_prompt": (f"{ROLE}.system_prompt=searches", "'searcher' and is 'searches'"),
}


def loaded(folder: Path, *options: str, checkpoint: dict[str, Any] | None = None) -> MgrpoCLI:
    """A team with the last checkpoint of the folder's run in it."""
    cli = make_cli(["--config", str(folder / "team.yaml"), *options], run=False)
    cli.model.configure_model()
    cli.model.on_load_checkpoint(checkpoint or torch.load(last_checkpoint(run_of(folder) / "checkpoints")))
    return cli


@pytest.mark.parametrize("part", CHANGES)
def test_a_checkpoint_under_another_part_is_refused_by_it_and_loads_where_that_is_accepted(
    part: str, folder: Path
) -> None:
    change, told = CHANGES[part]
    options = [change] if isinstance(change, str) else []
    if callable(change):
        change(folder)
    with pytest.raises(ConfigurationError, match=rf"searcher's {part} was .*{told}.*HINT.*accept_changes=\[{part}\]"):
        loaded(folder, *options)
    accept = f"--run.accept_changes=[{part}]"
    if part in ("adapter.rank", "adapter.target_modules"):  # no shape can be accepted
        with pytest.raises(DataError, match="is not a state of adapter 'searcher'"):
            loaded(folder, *options, accept)
    else:
        saved = torch.load(last_checkpoint(run_of(folder) / "checkpoints"))
        state = loaded(folder, *options, accept).model.adapters["searcher"].adapter_state()
        assert all(torch.equal(value, saved["roles"]["searcher"]["adapter"][name]) for name, value in state.items())


def test_all_parts_that_differ_are_told_at_once_and_only_those_named_are_accepted(folder: Path) -> None:
    options = [str(CHANGES[part][0]) for part in ("adapter.alpha", "system_prompt")]
    with pytest.raises(
        ConfigurationError, match=r"adapter\.alpha .*; .*system_prompt .*=\[adapter\.alpha,system_prompt\]"
    ):
        loaded(folder, *options)
    with pytest.raises(ConfigurationError, match=r"system_prompt .*=\[system_prompt\]"):
        loaded(folder, *options, "--run.accept_changes=[adapter.alpha]")


def test_every_part_is_tried() -> None:
    assert CHANGES.keys() == set(PARTS)


def test_what_may_change_on_the_way_is_no_part(folder: Path) -> None:
    ours = ("optimizer.lr=1e-4", "limits.turns=2", "reward.format=0.5", "sampling.temperature=0.9")
    others = ("model.token_budget=4096", "model.dense_copy=true", "trainer.max_steps=7")
    options = [*(f"{ROLE}.{option}" for option in ours), *(f"--{option}" for option in others)]
    assert loaded(folder, *options).model.num_steps == 2


def test_the_same_base_in_another_folder_is_the_same(folder: Path) -> None:
    (folder / "model").rename(folder / "moved")
    options = [f"--model.roles.{role}.base_model={folder / 'moved'}" for role in ("main", "searcher")]
    assert loaded(folder, *options).model.num_steps == 2


def test_an_older_checkpoint_is_loaded_with_a_warning(folder: Path) -> None:
    checkpoint = torch.load(last_checkpoint(run_of(folder) / "checkpoints"))
    del checkpoint["identity"]
    with pytest.warns(UserWarning, match="does not record its model"):
        assert loaded(folder, checkpoint=checkpoint).model.num_steps == 2


def test_every_command_that_reads_a_checkpoint_refuses_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config", str(folder / "team.yaml"), "--ckpt_path=last", f"{ROLE}.adapter.alpha=128"]
    for command in (["fit"], ["validate", "--trainer.limit_val_batches=1.0"], ["test"], ["predict", "--question=Who?"]):
        with pytest.raises(SystemExit) as stopped:
            main([*command, *words])
        assert stopped.value.code == 2
        message = capsys.readouterr().err
        assert "step=000002.ckpt belongs to another model: searcher's adapter.alpha was '8' and is '128'" in message
    main(["fit", *words, "--run.accept_changes=[adapter.alpha]", "--trainer.max_steps=3"])
    assert "accept_changes" not in (run_of(folder) / "config.yaml").read_text()
    assert yaml.safe_load((run_of(folder) / "config.yaml").read_text())["run"]["name"] == "toy"
    assert loaded(folder, f"{ROLE}.adapter.alpha=128").model.num_steps == 3, "it belongs to the new one from there on"


def test_a_part_that_there_is_not_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(folder / "team.yaml"), "--run.accept_changes=[alpha]"])
    assert "run.accept_changes has the unknown part 'alpha'. HINT: use base_model," in capsys.readouterr().err


@pytest.mark.parametrize("part", OF_A_START)
def test_an_exported_adapter_of_another_base_is_no_start(part: str, folder: Path) -> None:
    adapter = run_of(folder) / "adapters" / "searcher"
    change, told = CHANGES[part]
    start = [f"{ROLE}.adapter.path={adapter}", f"{ROLE}.system_prompt=a new one"]

    def begin(*options: str) -> None:
        make_cli(["--config", str(folder / "team.yaml"), *start, *options], run=False).model.configure_model()

    begin()
    options = [change] if isinstance(change, str) else []
    if callable(change):
        change(folder)
    with pytest.raises(ConfigurationError, match=rf"{adapter} belongs to .*searcher's {part} was .*{told}"):
        begin(*options)
    begin(*options, f"--run.accept_changes=[{part}]")
    (adapter / "mgrpo_identity.json").unlink()
    begin(*options)  # as from peft itself, which does not say
    (adapter / "mgrpo_identity.json").write_text("[")
    with pytest.raises(DataError, match=r"mgrpo_identity\.json cannot be read"):
        begin(*options)


def test_peft_reads_an_exported_adapter_with_what_it_belongs_to(folder: Path) -> None:
    base = load_base(str(folder / "model"), quantization="none", compute_dtype=torch.float32)
    assert PeftModel.from_pretrained(base.model, str(run_of(folder) / "adapters" / "main"))


def test_a_journal_says_who_played_and_a_replay_by_another_is_refused(folder: Path) -> None:
    file = run_of(folder) / "journal" / "step-000001.parquet"
    checkpoint = torch.load(last_checkpoint(run_of(folder) / "checkpoints"))
    assert identity_of_file(file) == checkpoint["identity"]
    assert replay(run_of(folder), start=None, until=2).metrics
    other_weights(folder)
    with pytest.raises(ConfigurationError, match=r"step-000000\.parquet belongs to another model: main's base_model"):
        replay(run_of(folder), start=None, until=1)
    changed = replay(run_of(folder), start=None, until=1, settings=[f"{ROLE}.adapter.alpha=16"])
    assert changed.metrics, "another model is asked for on purpose"
