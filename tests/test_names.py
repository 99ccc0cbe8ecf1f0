"""Names of roles and tools: what is refused, and that no allowed one changes what is trained or exported."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from torch import nn

from mgrpo_lightning.commands.config_files import compose
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.commands.launch import team_of
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.names import check_roles, check_tools
from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.protocol.prompts import heard, results
from mgrpo_lightning.records.trajectory import Call, Message
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig
from tests.support.team_file import write_team_file

IDS = torch.arange(1, 9)[None]


def names_of_parts(folder: Path) -> list[str]:
    """Every word in the name of a module or parameter, adapters included, and every attribute that torch might find."""
    base = load_base(str(folder), quantization="none", compute_dtype=torch.float32)
    Policy("main", RoleConfig(base.name), base, seed=0)
    model = base.model
    paths = [*(name for name, _ in model.named_modules()), *(name for name, _ in model.named_parameters())]
    words = {word for path in paths for word in path.split(".")} | {*dir(nn.ModuleDict), *dir(nn.Module)}
    return sorted(word for word in words if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", word))


def exported_is_played(folder: Path, names: list[str], out: Path) -> None:
    """Roles of these names on one base: each exported adapter gives in peft bitwise what the role computes."""
    base = load_base(str(folder), quantization="none", compute_dtype=torch.float32)
    roles = [Policy(name, RoleConfig(base.name, adapter=AdapterConfig(4, 8)), base, seed=0) for name in names]
    for number, policy in enumerate(roles):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in policy.named_parameters().values():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    states = [policy.adapter_state() for policy in roles]
    for policy, state in zip(roles, states, strict=True):
        assert len(state) == 28, f"{policy.role}: {len(state)} of 14 layers' two matrices"
        assert state.keys() == states[0].keys()
        policy.save_peft(out / policy.role)
        with torch.no_grad(), policy.active():
            ours = base.model(IDS).logits
        fresh = load_base(str(folder), quantization="none", compute_dtype=torch.float32)
        peft = PeftModel.from_pretrained(fresh.model, str(out / policy.role))
        with torch.no_grad():
            assert torch.equal(peft(IDS).logits, ours), policy.role
        with torch.no_grad(), policy.reference():
            assert not torch.equal(base.model(IDS).logits, ours), "the reference is the start"


def test_an_adapter_is_exported_as_played_whatever_its_role_is_called(tiny: Path, tmp_path: Path) -> None:
    exported_is_played(tiny, ["layers", "keys", "lora_A", "main", "weight", "q_proj", "main__reference"], tmp_path)


@pytest.mark.slow
def test_every_name_of_a_part_is_exported_as_played(tiny: Path, tmp_path: Path) -> None:
    names = names_of_parts(tiny)
    assert {"layers", "keys", "forward", "base_layer", "lora_B"} <= set(names)
    for start in range(0, len(names), 8):
        exported_is_played(tiny, names[start : start + 8], tmp_path / str(start))


def test_names_of_parts_make_a_team(tiny: Path, tmp_path: Path) -> None:
    team = write_team_file(tmp_path, tiny)
    content = yaml.safe_load(team.read_text())
    roles = content["model"]["roles"]
    names = {"layers", "keys", "items", *names_of_parts(tiny)[::8]}
    roles |= dict.fromkeys(names, roles.pop("searcher"))
    roles["main"]["calls"] = list(names)
    team.write_text(yaml.safe_dump(content))
    module = make_cli(["--config", str(team), "--model.roles.keys.lag=2"], run=False).model
    assert {module.role_module(name).name for name in module.trained_roles} == roles.keys() > {"layers", "keys"}
    assert module.roles["keys"].lag == 2


def test_a_role_of_any_name_is_trained(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    team = write_team_file(tmp_path, tiny, max_steps=1, limit_val_batches=0)
    team.write_text(re.sub(r"\bmain:", "layers:", re.sub(r"\bsearcher\b(?!\n)", "keys", team.read_text())))
    content = yaml.safe_load(team.read_text())
    content["model"]["roles"]["layers"]["calls"] = ["keys"]
    team.write_text(yaml.safe_dump(content))
    main(["fit", "--config", str(team)])
    state = torch.load(tmp_path / "runs" / "toy" / "checkpoints" / "step=000001.ckpt", weights_only=True)
    assert {role: len(values["adapter"]) for role, values in state["roles"].items()} == {"layers": 28, "keys": 28}


@given(st.text() | st.from_regex(r"\w{1,4}", fullmatch=True))
def test_a_name_is_a_word_that_nothing_reads_otherwise(name: str) -> None:
    with suppress(ConfigurationError):
        check_roles([name])
        assert yaml.safe_load(f"{name}: 1") == {name: 1}
        assert Path(name).name == name
        assert name.isidentifier()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "on",
        "yes",
        "Null",
        "../x",
        "a/b",
        "a.b",
        "1st",
        "größe",
        "x" * 65,
        "store",
        "Adapters",
        "val",
        "init_args",
        3,
    ],
)
def test_a_name_that_something_reads_otherwise_is_refused(name: object) -> None:
    with pytest.raises(ConfigurationError, match=r"a role is called .*HINT: "):
        check_roles(["main", name])


def test_names_that_differ_in_case_alone_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'main' and 'Main', which are the same folder"):
        check_roles(["main", "Main"])


@pytest.mark.parametrize("word", ["on", "no", "null", "~", "1.5"])
def test_a_word_that_yaml_takes_for_a_value_is_no_key(tmp_path: Path, word: str) -> None:
    path = tmp_path / "team.yaml"
    path.write_text(f"roles:\n  {word}: {{}}\n")
    with pytest.raises(ConfigurationError, match=rf"the key '{word}' means .* in YAML(?s:.)*line 2"):
        compose(["fit", "--config", str(path)])


def test_a_role_that_leaves_the_run_makes_no_folder(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    team = write_team_file(tmp_path, tiny)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(team), "--role", "../x"])
    assert stopped.value.code == 2
    assert "local role '../x' is not in this team" in capsys.readouterr().err
    team.write_text(team.read_text().replace("searcher", "../x"))
    with pytest.raises(ConfigurationError, match=r"a role is called '\.\./x'"):
        team_of(["--config", str(team)])
    assert [path.name for path in tmp_path.iterdir()] == ["team.yaml"]


@pytest.mark.parametrize("names", [["two words"], [""], ['say"'], ["search", "search"], ["reader"]])
def test_tools_have_names_that_a_call_can_have_once(names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"role 'main' .*HINT: "):
        check_tools("main", names, ["reader"])


def test_a_call_of_any_tool_is_found_in_a_discussion() -> None:
    call = Call(0, "brave-web.search", {"query": "a"}, "found", False, None, 0.0)
    assert list(results([Message("user", f"What?\n{heard('ann', call)}")])) == ["found"]
