"""An exported adapter: PEFT loads it from the base that it names, with the tokenizer and template of the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.adapter_folder import TOKENIZER_FILES, named_base, write_adapter
from mgrpo_lightning.policy.chatml import TEMPLATES
from mgrpo_lightning.policy.loading import Base, load_base
from mgrpo_lightning.policy.peft_folder import read_peft_folder
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.quantised import unquantised
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig

MakePolicy = Callable[..., Policy]
IDS = torch.arange(1, 9)[None]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_peft_loads_it_from_the_base_that_it_names(make_policy: MakePolicy, tmp_path: Path, quantization: str) -> None:
    policy = make_policy(quantization=quantization)
    policy.save_peft(tmp_path)
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path, **named_base(policy.identity).load)
    assert (unquantised(model.get_base_model())[0] < 0.05) is (quantization == "nf4")
    model.train()  # else bitsandbytes would compute in bfloat16 on some CPUs; the model has no dropout
    with policy.active():
        torch.testing.assert_close(model(IDS).logits, policy.base.model(IDS).logits, rtol=0, atol=1e-5)


def test_tokenizer_and_template_come_back(make_base: Callable[..., Base], tmp_path: Path) -> None:
    base = make_base()
    policy = Policy("main", RoleConfig(base.name, chat_template="chatml_no_think"), base, seed=0)
    policy.save_peft(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.backend_tokenizer.to_str() == policy.chat.vocabulary
    assert tokenizer.chat_template == TEMPLATES["chatml_no_think"]
    messages = [{"role": "system", "content": "Use <answer>."}, {"role": "user", "content": "word 3"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert ids == policy.chat.open("Use <answer>.", "word 3")
    assert base.tokenizer.chat_template != tokenizer.chat_template, "other roles have the base's own"


def test_a_template_that_asks_for_the_date_is_saved_as_it_is_rendered(
    make_base: Callable[..., Base], tmp_path: Path
) -> None:
    base = make_base()
    source = "{{- strftime_now('%d') -}}" + TEMPLATES["chatml"]
    (tmp_path / "dated.jinja").write_text(source)
    policy = Policy("main", RoleConfig(base.name, chat_template=str(tmp_path / "dated.jinja")), base, seed=0)
    policy.save_peft(tmp_path / "out")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], add_generation_prompt=True)["input_ids"]
    assert ids == policy.chat.open("", "x")


def test_files_that_do_not_change_are_linked(
    make_policy: MakePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy()
    base = named_base(policy.identity)
    first, second, third, fourth = (tmp_path / name for name in ("first", "second", "third", "fourth"))
    write_adapter(policy.trained(), first, base)
    with torch.no_grad():
        for parameter in policy.named_parameters().values():
            parameter.add_(1.0)
    write_adapter(policy.trained(), second, base, like=first)
    assert all((first / name).samefile(second / name) for name in TOKENIZER_FILES)
    assert sorted(path.name for path in second.iterdir()) == sorted(path.name for path in first.iterdir())
    config = replace(policy.config.adapter, path=str(second))
    state = read_peft_folder(config, role="main")
    assert all(torch.equal(state[name], value) for name, value in policy.adapter_state().items())

    def no_links(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", no_links)
    write_adapter(policy.trained(), third, base, like=first)
    (first / "tokenizer.json").unlink()
    write_adapter(policy.trained(), fourth, base, like=first)
    for folder in (third, fourth):
        assert (folder / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()


def test_a_base_of_the_hub_is_named_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "snapshots" / "0a1b"
    monkeypatch.setattr("mgrpo_lightning.policy.adapter_folder.folder_of", lambda name: snapshot)
    identity = {"base_model": {"name": "me/base", "sha256": "x"}, "quantization": "nf4", "compute_dtype": "bfloat16"}
    base = named_base(identity)
    assert (base.path, base.revision, base.on_hub) == ("me/base", "0a1b", True)
    assert base.load["dtype"] == base.load["quantization_config"]["bnb_4bit_compute_dtype"] == "bfloat16"


def test_a_local_base_is_named_by_its_absolute_path(
    make_policy: MakePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy()
    folder = Path(policy.base.name)
    monkeypatch.chdir(folder.parent)
    base = named_base({**policy.identity, "base_model": {"name": folder.name, "sha256": None}})
    assert (base.path, base.revision, base.on_hub) == (str(folder), None, False)
    pocket = named_base({**policy.identity, "base_model": {"name": "pocket", "sha256": None}})
    assert (Path(pocket.path) / "config.json").is_file()


def test_other_files_in_the_folder_neither_disturb_nor_run(make_policy: MakePolicy, tmp_path: Path) -> None:
    policy = make_policy()
    policy.save_peft(folder := tmp_path / "adapter")
    bomb = f"open({str(tmp_path / 'ran')!r}, 'w')"
    for name in ("modeling.py", "tokenization.py", "conftest.py", "setup.py"):
        (folder / name).write_text(bomb)
    described = json.loads((folder / "tokenizer_config.json").read_text())
    described["auto_map"] = {"AutoTokenizer": ["tokenization.Bomb", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    (folder / "role.json").write_text("no JSON")
    config = RoleConfig(policy.base.name, adapter=AdapterConfig(4, 8, path=str(folder)))
    fresh = load_base(policy.base.name, quantization="none", compute_dtype=torch.float32)
    again = Policy("main", config, fresh, seed=0)
    again.refuse_other_start(())
    assert all(torch.equal(again.adapter_state()[name], value) for name, value in policy.adapter_state().items())
    with pytest.raises(ConfigurationError, match=r"is the folder of an adapter|needs code from its folder"):
        load_base(str(folder), quantization="none", compute_dtype=torch.float32)
    assert not (tmp_path / "ran").exists()


def test_the_identity_still_refuses_another_base(make_policy: MakePolicy, tmp_path: Path) -> None:
    policy: Any = make_policy(quantization="nf4")
    policy.save_peft(tmp_path)
    config = RoleConfig(policy.base.name, adapter=AdapterConfig(4, 8, path=str(tmp_path)))
    fresh = load_base(policy.base.name, quantization="none", compute_dtype=torch.float32)
    with pytest.raises(ConfigurationError, match=r"quantization was 'nf4' and is 'none'"):
        Policy("main", config, fresh, seed=0).refuse_other_start(())
