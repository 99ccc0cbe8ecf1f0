"""``mgrpo export`` and ``export-base``: what they write is used without the package, and computes what it computed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from transformers import AutoModelForCausalLM

from mgrpo_lightning.callbacks.adapter_card import use_lines
from mgrpo_lightning.commands.exporting import Exporter, push
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.commands.saved_run import cli_of
from mgrpo_lightning.errors import ConfigurationError, DataError, MgrpoError
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.persistence.checkpoints import last_checkpoint
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.base import SamplingParams
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.protocol.prompts import system_prompt
from tests.support.teams import Team

pytestmark = pytest.mark.usefixtures("own_argv")

ROLES = ("main", "searcher")
ASKED = '"What is the capital of Peru?"'
RUNNER = """
import json, sys
for name in {blocked}: sys.modules[name] = None
given = json.load(sys.stdin)
load, ask = given["lines"].split("messages = ", 1)
exec(load)
found = []
for question in given["questions"]:
    exec("messages = " + ask.replace({asked!r}, repr(question)))
    found.append(output[0, prompt["input_ids"].shape[1] :].tolist())
print(json.dumps([role["messages"], found]))
"""
"""Runs the documented lines in a process that has no access to the package, and asks every question with them."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, root: Path, team: Team) -> Path:
    """A finished run, whose adapters have learnt something."""
    folder = tmp_path_factory.mktemp("runs")
    options = ["--trainer.limit_val_batches=0", "--data.rollouts_per_query=8"]
    options += [f"--model.roles.{role}.optimizer.lr=0.01" for role in ROLES if team.tiny]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("sys.argv", ["mgrpo"])
        main(team.command("fit", folder, "run", *options))
    return folder / "run"


@pytest.fixture(scope="module")
def trained(run: Path) -> TeamModule:
    """The team of the run, with the adapters of its last checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mgrpo"])
        module: TeamModule = cli_of(run).model
    module.configure_model()
    state = torch.load(last_checkpoint(run / "checkpoints"), weights_only=True)
    for role, policy in module.adapters.items():
        policy.load_adapter_state(state["roles"][role]["adapter"])
    return module


@pytest.fixture(scope="module")
def questions(run: Path, team: Team) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mgrpo"])
        task = cli_of(run).datamodule.task
    return [question.text for question in task.questions("validation")[: 3 if team.tiny else 20]]


def greedy(policy: Policy, system: str, questions: Sequence[str]) -> list[list[int]]:
    """The turns that the package samples greedily, one question at a time."""
    found = []
    for question in questions:
        scheduler = Scheduler("rounds")
        sampler = TransformersSampler(policy, scheduler)
        params = SamplingParams(policy.config.limits.new_tokens, policy.chat.stop_ids, 0.0)
        conversation = sampler.open(policy.chat.open(system, question), (0,))
        (turn,) = scheduler.play([conversation.sample(params, 0)])
        found.append(list(turn.ids))
    return found


def documented(root: Path) -> list[str]:
    """The blocks of Python of the guide: with bitsandbytes, and without."""
    return re.findall(r"```python\n(.*?)```", (root / "docs/guides/export.md").read_text(encoding="utf-8"), re.DOTALL)


def asked(lines: str, folder: Path, questions: Sequence[str], *, blocked: Sequence[str]) -> tuple[str, list[list[int]]]:
    """The system prompt and the turns that the lines give in a process of their own, started in a folder."""
    code = RUNNER.format(blocked=["mgrpo_lightning", *blocked], asked=ASKED)
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=folder,
        input=json.dumps({"lines": lines, "questions": list(questions)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    messages, found = json.loads(done.stdout.splitlines()[-1])
    return messages[0]["content"], found


def export(*words: object) -> None:
    main(["export", *map(str, words)])


def test_the_lines_of_the_guide_are_those_of_the_cards(root: Path) -> None:
    assert documented(root) == [use_lines("exported/main", four_bit=four_bit) for four_bit in (True, False)]


@pytest.mark.parametrize("way", [pytest.param("bitsandbytes", marks=pytest.mark.slow), "dequantised"])
def test_the_documented_lines_give_the_ids_of_the_package(
    way: str, run: Path, trained: TeamModule, questions: list[str], tmp_path: Path, root: Path, own_argv: None
) -> None:
    made, copied = tmp_path / "made", tmp_path / "copied"
    for folder in (made, copied):
        folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        name = trained.roles["main"].base_model
        quantization, blocked = ("nf4", ["bitsandbytes"]) if way == "dequantised" else ("none", [])
        main(["export-base", name, "--out", "exported/base", "--quantization", quantization])
        export(run, "--out", "exported", "--base", "exported/base")
    shutil.move(made / "exported", copied / "exported")
    lines = documented(root)[way == "dequantised"]
    for role in ROLES:
        policy = trained.policies[role]
        system, found = asked(lines.replace("exported/main", f"exported/{role}"), copied, questions, blocked=blocked)
        assert found == greedy(policy, system, questions), role
        assert max(map(len, found)) > 1
        if policy.config.system_prompt is not None:
            assert system == system_prompt(role, policy.config, [])


def test_the_folders_of_a_fit_are_those_of_an_export(run: Path, tmp_path: Path) -> None:
    export(run, "--out", tmp_path)
    for role in ROLES:
        names = {path.name for path in (tmp_path / role).iterdir()}
        assert names >= {"adapter_model.safetensors", "adapter_config.json", "role.json", "README.md", "tokenizer.json"}
        assert names == {path.name for path in (run / "adapters" / role).iterdir()}
        for name in names - {"adapter_config.json"}:  # PEFT writes the targets in any order
            assert (tmp_path / role / name).read_bytes() == (run / "adapters" / role / name).read_bytes(), name


def test_one_role_and_another_checkpoint(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = last_checkpoint(run / "checkpoints")
    export(run, "--out", tmp_path, "--role", "searcher", "--ckpt_path", checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["searcher"]
    assert f"searcher: {tmp_path / 'searcher'}, an adapter of " in capsys.readouterr().out


@pytest.mark.parametrize("onto", ["dequantised", "original"])
def test_a_merged_model_is_measured_and_plain(
    onto: str, run: Path, trained: TeamModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(run, "--out", tmp_path, "--role", "main", "--merge", "--onto", onto)
    out = capsys.readouterr().out
    found = re.search(
        rf"merged into the {onto} base\. .* differ .* by (\S+) nats a token .* sampled tokens of step", out
    )
    assert found is not None, out
    assert (float(found[1]) < 1e-4) is (onto == "dequantised")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "main")
    policy = trained.policies["main"]
    assert model.generation_config.eos_token_id == list(policy.chat.stop_ids)
    role = json.loads((tmp_path / "main" / "role.json").read_text(encoding="utf-8"))
    assert role["load"] == {"dtype": "float32"}
    if onto == "dequantised":
        ids = torch.tensor([policy.chat.open("main", "word 3")])
        with torch.no_grad(), policy.active():
            torch.testing.assert_close(model(ids).logits, policy.base.model(ids).logits, rtol=0, atol=1e-3)


def test_without_a_journal_the_prompts_of_the_task_are_measured(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("journal"))
    export(copy, "--out", tmp_path / "out", "--role", "searcher", "--merge")
    assert re.search(r"by \S+ nats a token .*\d+ tokens of prompts", capsys.readouterr().out)


def test_only_earlier_exports_are_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "work.txt").touch()
    exporter = Exporter(run)
    for write in (
        lambda: exporter.write("main", tmp_path / "main", exporter.base("main", None)),
        lambda: exporter.merge("main", tmp_path / "main", onto="dequantised"),
    ):
        with pytest.raises(ConfigurationError, match=r"is not an earlier export.*HINT: give another --out"):
            write()
    with pytest.raises(SystemExit) as stopped:
        main(["export-base", "pocket", "--out", str(tmp_path / "main")])
    assert stopped.value.code == 2
    assert [path.name for path in (tmp_path / "main").iterdir()] == ["work.txt"]
    for _ in range(2):
        exporter.write("main", tmp_path / "again", exporter.base("main", None))


def test_what_cannot_be_exported_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"role 'nobody' is not played in this run.*use one of \['main'"):
        Exporter(run).roles("nobody")
    damaged = tmp_path / "step=000009.ckpt"
    damaged.write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match=r"cannot be loaded.*HINT"):
        Exporter(run, ckpt_path=str(damaged))
    torch.save({"state_dict": {}}, damaged)
    with pytest.raises(DataError, match=r"does not say which team.*HINT: give a checkpoint of `mgrpo fit`"):
        Exporter(run, ckpt_path=str(damaged))
    for words in (["--onto", "original"], ["--merge", "--base", "x"]):
        with pytest.raises(SystemExit):
            export(run, "--out", tmp_path, *words)
    assert "--onto needs --merge" in capsys.readouterr().err


class Hub:
    """In place of ``HfApi``: remembers what was uploaded."""

    def __init__(self) -> None:
        self.made: list[tuple[str, bool]] = []
        self.uploaded: dict[str, set[str]] = {}
        self.error: Exception | None = None

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> Any:
        assert exist_ok
        if self.error is not None:
            raise self.error
        self.made.append((name, private))
        return type("Url", (str,), {"repo_id": name})(f"hub://{name}")

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        self.uploaded[repo_id] = {path.name for path in folder_path.iterdir()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr("mgrpo_lightning.commands.exporting.HfApi", lambda: hub)
    return hub


def test_folders_are_pushed_to_private_repositories(
    run: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    export(run, "--out", tmp_path, "--merge", "--push", "me/team")
    assert hub.made == [("me/team-main", True), ("me/team-searcher", True)]
    assert all(names >= {"model.safetensors", "README.md", "role.json"} for names in hub.uploaded.values())
    assert "main: hub://me/team-main" in capsys.readouterr().out


def test_an_adapter_of_a_local_base_is_not_pushed(
    run: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        export(run, "--out", tmp_path, "--push", "me/team")
    assert stopped.value.code == 2
    assert re.search(r"folder of this machine.*HINT: upload a base", capsys.readouterr().err)
    assert not hub.made
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError("no token"), ValueError("bad name"), httpx2.ConnectError("no network")])
def test_a_hub_that_refuses_is_a_clear_error(error: Exception, tmp_path: Path, hub: Hub) -> None:
    hub.error = error
    with pytest.raises(MgrpoError, match=r"was not uploaded to me/team-main.*HINT: log in"):
        push({"main": tmp_path}, "me/team")
