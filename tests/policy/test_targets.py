"""Layers that an adapter may stand on: linear ones below the head, of which PEFT reads an export back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.adapters import AdapterBank
from mgrpo_lightning.policy.loading import Base
from mgrpo_lightning.policy.supported import empty_model
from mgrpo_lightning.roles.config import AdapterConfig
from tests.policy.architectures import linear_layers, make_tiny, tiny_config
from tests.support.team_file import write_team_file


@pytest.mark.parametrize("target", ["lm_head", "q_projection", "embed_tokens"])
def test_targets_must_be_linear_layers_below_the_head(make_base: Callable[..., Base], target: str) -> None:
    base = make_base()
    with pytest.raises(
        ConfigurationError, match=rf"{target}.*HINT: use its linear layers: \['down_proj', .*'v_proj'\]"
    ):
        base.adapters.add("main", AdapterConfig(target_modules=["q_proj", target]), trainable=True)
    assert base.adapters.parameters("main") == {}


def add(model: PreTrainedModel, targets: list[str]) -> int:
    bank = AdapterBank(model, "tiny")
    bank.add("main", AdapterConfig(rank=4, target_modules=targets), trainable=True)
    return len(bank.parameters("main"))


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_layers_whose_adapter_peft_would_lose_are_refused_by_name(device: str) -> None:
    """transformers renames Laguna's shared experts while it loads, and does so to names that are right already."""
    config = tiny_config("laguna")
    with torch.device(device):
        make = empty_model if device == "meta" else AutoModelForCausalLM.from_config
        targets = linear_layers(make(config))
        refusal = (
            r"base_model 'tiny' \(LagunaForCausalLM\): peft .* cannot load the adapter of layer model\.layers\.1\.mlp\."
            r"shared_experts\.down_proj .* 2 other layers\. HINT: leave \['down_proj', 'gate_proj', 'up_proj'\] out"
        )
        with pytest.raises(ConfigurationError, match=refusal):
            add(make(config), targets)
        assert add(make(config), sorted({*targets} - {"down_proj", "gate_proj", "up_proj"})) > 0


def test_a_dry_run_refuses_targets_as_a_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_tiny(tiny_config("gpt_neox"), tmp_path / "base")
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(write_team_file(tmp_path, folder)), "--dry_run"])
    assert "'q_proj', which is not a linear layer of the base. HINT: use its linear layers:" in capsys.readouterr().err
