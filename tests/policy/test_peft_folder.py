"""PEFT folders: every field of ``LoraConfig`` away from its default is refused by name, or computes what PEFT does."""

from __future__ import annotations

import json
import shutil
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.policy.loading import Base, load_base
from mgrpo_lightning.policy.peft_folder import ALLOWED, HARMLESS, read_peft_folder
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig

ADAPTER: dict[str, Any] = {"rank": 4, "alpha": 8}
COMPARED = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
"""What the team file says as well: these are refused with its words."""
VALUES: dict[str, list[Any]] = {
    "peft_type": ["LOHA", "ADALORA", None],
    "task_type": [None, "SEQ_CLS"],
    "bias": ["all", "lora_only"],
    "layers_to_transform": [0, [0]],
    "rank_pattern": [{"q_proj": 2}],
    "alpha_pattern": [{"q_proj": 64}, {"layers.0.self_attn.q_proj": 1}],
    "lora_dropout": [0.5],
    "target_parameters": [["mlp.up_proj.weight"]],
    "trainable_token_indices": [[1, 2]],
    "qalora_group_size": [4],
    "exclude_modules": [["k_proj"], "k_proj"],
    "layer_replication": [[[0, 1], [0, 1]]],
    "init_lora_weights": [False, "gaussian", "orthogonal", "eva", "mica", "olora", "pissa", "pissa_niter_4", "corda"],
}
"""Away from the default, where the type alone does not tell a value that PEFT can use."""


def values_of(name: str, default: Any) -> list[Any]:
    """Values away from the default of any field, also of one that peft adds tomorrow."""
    if name in VALUES:
        return VALUES[name]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int | float):
        return [default + 1]
    return ["another"] if isinstance(default, str) else [{"a": 1}]


CASES = [
    (field.name, value)
    for field in fields(LoraConfig)
    if field.name not in COMPARED
    for value in values_of(field.name, getattr(LoraConfig(), field.name))
]


@pytest.fixture(scope="module")
def exported(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = load_base(str(tiny_dir), quantization="none", compute_dtype=torch.float32)
    policy = Policy("main", RoleConfig(base.name, adapter=AdapterConfig(**ADAPTER)), base, seed=0)
    with torch.no_grad():
        for parameter in policy.named_parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    policy.save_peft(folder := tmp_path_factory.mktemp("exported"))
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "adapter"))


def describe(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def config(folder: Path, **changes: Any) -> AdapterConfig:
    return AdapterConfig(**{**ADAPTER, "path": str(folder), **changes})


def ours(base: Base, folder: Path) -> torch.Tensor:
    policy = Policy("main", RoleConfig(base.name, adapter=config(folder)), base, seed=0)
    with policy.active(), torch.no_grad():
        logits = base.model(torch.arange(1, 9)[None]).logits
    assert isinstance(logits, torch.Tensor)
    return logits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "value"), CASES, ids=[f"{name}-{json.dumps(value)}" for name, value in CASES])
def test_every_adapter_field_is_refused_or_computes_what_peft_does(
    name: str, value: Any, folder: Path, make_base: Callable[..., Base]
) -> None:
    describe(folder, **{name: value})
    try:
        read_peft_folder(config(folder), role="main")
    except ConfigurationError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert f"{folder} has {name} " in refused
        assert "HINT" in refused
        return
    found = ours(make_base(), folder)
    theirs = PeftModel.from_pretrained(make_base().model, str(folder)).eval()
    with torch.no_grad():
        assert torch.equal(theirs(torch.arange(1, 9)[None]).logits, found)


def test_every_adapter_field_that_is_let_through_is_one_of_peft_s() -> None:
    names = {field.name for field in fields(LoraConfig)}
    assert HARMLESS.keys() | ALLOWED.keys() <= names
    literals = {
        word
        for part in typing.get_args(typing.get_type_hints(LoraConfig)["init_lora_weights"])
        for word in typing.get_args(part)
    }
    starts = {word.partition("_")[0] for word in literals}
    assert starts <= {str(value).partition("_")[0] for value in VALUES["init_lora_weights"]} | {"loftq"}


@pytest.mark.parametrize("value", [True, 0, 3, "on", {"a": 1}, [1]])
def test_every_adapter_field_of_a_future_peft_is_refused_where_it_says_something(value: Any, folder: Path) -> None:
    describe(folder, use_tomorrow=value)
    with pytest.raises(ConfigurationError, match=r"has use_tomorrow .*unknown to this version of peft.*HINT"):
        read_peft_folder(config(folder), role="main")


@pytest.mark.parametrize("value", [None, False, {}, []])
def test_a_field_of_another_peft_that_says_nothing_does_no_harm(value: Any, folder: Path) -> None:
    describe(folder, use_tomorrow=value)
    assert read_peft_folder(config(folder), role="main")


@pytest.mark.parametrize(("name", "value"), COMPARED.items())
def test_what_the_team_file_says_too_is_refused_with_both_values(name: str, value: Any, folder: Path) -> None:
    describe(folder, **{name: value})
    key = {"r": "rank", "lora_alpha": "alpha"}.get(name, name)
    with pytest.raises(ConfigurationError, match=rf"'{key}': .*the team file says .*'{key}'.*HINT"):
        read_peft_folder(config(folder), role="main")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_named_with_its_tensor_and_file(number: float, folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    name = sorted(state)[7]
    state[name][1, 0] = number
    save_file(state, path)
    with pytest.raises(DataError, match=rf"{path}: {name} contains NaN or infinite values"):
        read_peft_folder(config(folder), role="main")


def test_a_name_that_peft_would_not_read_is_refused(folder: Path) -> None:
    """Without PEFT's prefix it would count here, and not there."""
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    name = sorted(state)[0]
    state[name.removeprefix("base_model.model.")] = state.pop(name)
    save_file(state, path)
    with pytest.raises(DataError, match=f"{name.removeprefix('base_model.model.')}.*which PEFT does not read"):
        read_peft_folder(config(folder), role="main")


@pytest.mark.parametrize("role", ["main", "searcher"])
def test_the_embedded_adapters_are_let_through(role: str) -> None:
    assert read_peft_folder(AdapterConfig(path="pocket"), role=role)
