"""Adapters of several roles on one base: gradients, switching, start, reference, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.policy.adapters import _Matrix
from mgrpo_lightning.policy.loading import Base, load_base
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig

MakePolicy = Callable[..., Policy]
MakeBase = Callable[..., Base]
OTHER = AdapterConfig(rank=2, alpha=4, target_modules=["q_proj", "down_proj"])


def logprobs(policy: Policy, *, batch: int = 2, width: int = 12) -> Tensor:
    ids = torch.arange(1, batch * width + 1).reshape(batch, width) * 7 % 384
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, :4] = False
    return action_logprobs(policy, ids, torch.full((batch,), width), mask, temperature=1.0)


def gradients(policy: Policy) -> dict[str, Tensor]:
    for parameter in policy.base.model.parameters():
        parameter.grad = None
    torch.autograd.backward(logprobs(policy).sum())
    return {name: p.grad.clone() for name, p in policy.named_parameters().items() if p.grad is not None}


def base_bytes(policy: Policy) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in policy.base.model.state_dict().items() if ".lora_" not in name}


def test_gradients_before_and_after_an_eval_pass_are_equal(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Row 31: on AVX512-BF16 CPUs bitsandbytes would repack the base in the no-grad pass, without an input gradient.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    policy = make_policy(quantization="nf4")
    before, weights = gradients(policy), base_bytes(policy)
    with torch.no_grad():
        logprobs(policy)
    after = gradients(policy)
    assert before.keys() == policy.named_parameters().keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert all(torch.equal(value, weights[name]) for name, value in base_bytes(policy).items())
    layers = [module for module in policy.base.model.modules() if isinstance(module, Linear4bit)]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


@pytest.mark.parametrize("role", ["main", "searcher"])
def test_role_gradients_equal_those_of_a_model_with_one_adapter(
    make_base: MakeBase, make_policy: MakePolicy, role: str
) -> None:
    shared = make_base()
    adapters = {"main": AdapterConfig(rank=4, alpha=8), "searcher": OTHER}
    policies = {name: make_policy(name, base=shared, adapter=adapter) for name, adapter in adapters.items()}
    alone = make_policy(role, adapter=adapters[role])
    value = logprobs(policies[role])
    with torch.no_grad(), policies["searcher" if role == "main" else "main"].active():
        pass  # another role is selected between forward and backward
    for parameter in shared.model.parameters():
        parameter.grad = None
    torch.autograd.backward(value.sum())
    oracle = gradients(alone)
    ours = policies[role].named_parameters()
    assert ours.keys() == oracle.keys()
    for name, parameter in ours.items():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, oracle[name])
    others = policies["searcher" if role == "main" else "main"].named_parameters()
    assert all(parameter.grad is None for parameter in others.values())


def test_the_copy_of_a_matrix_is_made_once_between_two_writes(make_policy: MakePolicy) -> None:
    policy = make_policy(quantization="none", dtype=torch.bfloat16)
    layer = next(module for module in policy.base.model.modules() if isinstance(module, LoraLayer))
    matrix = layer.lora_B[policy.base.adapters.key("main")]
    assert isinstance(matrix, _Matrix)
    ids = torch.arange(1, 9)[None]

    def logits() -> Tensor:
        with torch.no_grad(), policy.active():
            found: Tensor = policy.base.model(ids).logits
            return found

    before, copy = logits(), matrix._copy
    logits()
    assert copy is not None
    assert matrix._copy is copy
    parameters = list(policy.named_parameters().values())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(parameters, lr=0.1).step()
    assert not torch.equal(logits(), before)
    with policy.active():
        assert torch.equal(policy.base.model(ids).logits, logits()), "as with gradients"


@pytest.mark.parametrize(("quantization", "bound"), [("none", 0.1), ("nf4", 0.3)])  # 4 bits of a rounded weight differ
def test_in_bfloat16_an_adapter_is_multiplied_in_it_and_kept_in_float32(
    make_policy: MakePolicy, quantization: str, bound: float
) -> None:
    exact = gradients(make_policy(quantization=quantization))
    policy = make_policy(quantization=quantization, dtype=torch.bfloat16)
    layers = [module for module in policy.base.model.modules() if isinstance(module, LoraLayer)]
    multiplied = []
    for layer in layers:
        for matrices in (layer.lora_A, layer.lora_B):
            matrices[policy.base.adapters.key("main")].register_forward_hook(
                lambda _, inputs, output: multiplied.append((inputs[0].dtype, output.dtype))
            )
    found = gradients(policy)
    assert multiplied == 2 * len(layers) * [(torch.bfloat16, torch.bfloat16)]
    assert all(parameter.dtype == torch.float32 for parameter in policy.named_parameters().values())
    for name, gradient in exact.items():
        assert found[name].dtype == torch.float32
        assert float((found[name] - gradient).norm() / gradient.norm()) < bound, name


def test_selecting_a_role_keeps_requires_grad_and_is_undone(make_base: MakeBase, make_policy: MakePolicy) -> None:
    base = make_base()
    main, searcher = make_policy("main", base=base), make_policy("searcher", base=base, adapter=OTHER)
    plain = logprobs(main)
    with searcher.active():
        assert all(p.requires_grad for policy in (main, searcher) for p in policy.named_parameters().values())
        inside = logprobs(main)
    assert torch.equal(plain, inside)
    assert not torch.allclose(plain, logprobs(searcher), atol=1e-3)


def test_the_state_is_whole_whichever_role_is_active(make_base: MakeBase, make_policy: MakePolicy) -> None:
    base = make_base()
    main, searcher = make_policy("main", base=base), make_policy("searcher", base=base, adapter=OTHER)
    with searcher.active():
        state = main.adapter_state()
    assert state.keys() == main.named_parameters().keys()
    assert len(state) == 28
    with torch.no_grad():
        for parameter in main.named_parameters().values():
            parameter.zero_()
    main.load_adapter_state(state)
    assert all(torch.equal(value, main.named_parameters()[name]) for name, value in state.items())


def test_a_frozen_role_has_no_gradients_and_others_keep_theirs(make_base: MakeBase) -> None:
    base = make_base()
    main = Policy("main", RoleConfig(base.name), base, seed=0)
    frozen = Policy("searcher", RoleConfig(base.name, trainable=False), base, seed=0)
    assert not any(parameter.requires_grad for parameter in frozen.named_parameters().values())
    assert all(parameter.requires_grad for parameter in main.named_parameters().values())


def test_the_start_depends_on_seed_and_role_alone(make_base: MakeBase) -> None:
    def start(order: list[str], seed: int) -> dict[str, dict[str, Tensor]]:
        base = make_base()
        torch.manual_seed(len(order))
        return {role: Policy(role, RoleConfig(base.name), base, seed=seed).adapter_state() for role in order}

    one, two, other = start(["main", "searcher"], 1), start(["searcher", "main"], 1), start(["main"], 2)
    for role in ("main", "searcher"):
        assert all(torch.equal(value, two[role][name]) for name, value in one[role].items())
    a_matrices = [name for name in one["main"] if ".lora_A." in name]
    assert all(not torch.equal(one["main"][name], one["searcher"][name]) for name in a_matrices)
    assert all(not torch.equal(one["main"][name], other["main"][name]) for name in a_matrices)


def test_a_new_adapter_changes_neither_the_base_nor_the_global_generator(make_base: MakeBase) -> None:
    base = make_base()
    ids = torch.arange(1, 9)[None]
    before = base.model(ids).logits
    torch.manual_seed(5)
    policy = Policy("main", RoleConfig(base.name), base, seed=0)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    with policy.active():
        torch.testing.assert_close(base.model(ids).logits, before)


def test_the_reference_is_the_start_adapter_not_the_base(make_policy: MakePolicy, tmp_path: Path) -> None:
    # Row 24, after a warm start: the adapter comes from a folder.
    warm = make_policy()
    warm.save_peft(tmp_path)
    policy = Policy(
        "main", RoleConfig(warm.base.name, adapter=AdapterConfig(4, 8, path=str(tmp_path))), fresh(warm), seed=0
    )
    start = logprobs(policy).detach()
    torch.testing.assert_close(start, logprobs(warm).detach())
    with torch.no_grad():
        for parameter in policy.named_parameters().values():
            parameter.add_(0.05)
    model = policy.base.model
    assert len(policy.base.adapters.parameters("main__reference")) == 0, "made on demand"
    ids = torch.arange(1, 25).reshape(2, 12) * 7 % 384
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, :4] = False
    for _ in range(2):
        with policy.reference():
            again = action_logprobs(model, ids, torch.full((2,), 12), mask, temperature=1.0)
        assert torch.equal(again, start)
        assert not again.requires_grad
    assert not torch.allclose(logprobs(policy).detach(), start, atol=1e-3)
    assert all(parameter.requires_grad for parameter in policy.named_parameters().values())
    assert policy.adapter_state().keys() == warm.adapter_state().keys()


def fresh(policy: Policy) -> Base:
    return load_base(policy.base.name, quantization="none", compute_dtype=torch.float32)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_saved_adapter_is_loaded_by_peft(
    make_base: MakeBase, make_policy: MakePolicy, tmp_path: Path, quantization: str
) -> None:
    base = make_base(quantization)
    main = make_policy("main", base=base)
    make_policy("searcher", base=base, adapter=OTHER)
    main.save_peft(tmp_path / "main")
    ids = torch.arange(1, 9)[None]
    with main.active():
        ours = base.model(ids).logits
    described = json.loads((tmp_path / "main" / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == base.name
    loaded = PeftModel.from_pretrained(make_base(quantization).model, str(tmp_path / "main"))
    assert torch.equal(loaded(ids).logits, ours)
    # the umask alone decides who may read it
    assert len({path.stat().st_mode for path in (tmp_path / "main").iterdir()}) == 1


@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape"])
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(make_policy: MakePolicy, fault: str) -> None:
    policy = make_policy()
    before = policy.adapter_state()
    state = {name: torch.zeros_like(value) for name, value in before.items()}
    name = sorted(state)[5]
    if fault == "missing":
        del state[name]
    elif fault == "unexpected":
        state["model.layers.9.lora_A.weight"] = torch.zeros(2)
        name = "model.layers.9.lora_A.weight"
    else:
        state[name] = torch.zeros(3, 3)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        policy.load_adapter_state(state)
    assert all(torch.equal(value, before[key]) for key, value in policy.adapter_state().items())


def test_a_folder_of_another_rank_is_refused_with_the_setting_to_change(
    make_policy: MakePolicy, tmp_path: Path
) -> None:
    make_policy().save_peft(tmp_path)
    other = make_policy("searcher")
    adapter = AdapterConfig(rank=16, alpha=8, path=str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"HINT: set `adapter: \{rank: 4, alpha: 8"):
        Policy("main", RoleConfig(other.base.name, adapter=adapter), other.base, seed=0)


@pytest.mark.parametrize("fault", ["no folder", "no weights", "broken weights", "dora"])
def test_a_broken_peft_folder_is_a_clear_error(make_policy: MakePolicy, tmp_path: Path, fault: str) -> None:
    policy = make_policy()
    folder = tmp_path / "adapter"
    policy.save_peft(folder)
    weights, description = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if fault == "no folder":
        folder = tmp_path / "elsewhere"
    elif fault == "no weights":
        weights.unlink()
    elif fault == "broken weights":
        weights.write_bytes(b"no tensors")
    else:
        description.write_text(json.dumps({**json.loads(description.read_text()), "use_dora": True}))
    adapter = AdapterConfig(rank=4, alpha=8, path=str(folder))
    with pytest.raises((ConfigurationError, DataError), match="HINT"):
        Policy("other", RoleConfig(policy.base.name, adapter=adapter), policy.base, seed=0)


def test_a_role_has_one_adapter(make_policy: MakePolicy) -> None:
    policy = make_policy()
    with pytest.raises(ConfigurationError, match="main"):
        Policy("main", policy.config, policy.base, seed=0)
