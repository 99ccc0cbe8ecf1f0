"""The dense copy: it computes what base and adapter compute, follows updates, and changes neither."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from mgrpo_lightning.policy.cpu.dense import DenseCopy, _DenseLinear
from mgrpo_lightning.policy.cpu.onednn import packed, packed_product, product
from mgrpo_lightning.policy.loading import Base
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.policy.peft_folder import WEIGHTS_NAME
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.base import SampledTurn, SamplingParams
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.roles.config import AdapterConfig

MakePolicy = Callable[..., Policy]
IDS = torch.arange(3, 23)[None]


@pytest.fixture
def team(make_base: Callable[..., Base], make_policy: MakePolicy) -> dict[str, Policy]:
    """Two roles on one NF4 base with a dense copy; the searcher has adapters on two kinds of layers only."""
    base = make_base("nf4")
    base.dense = DenseCopy(base.model)
    few = AdapterConfig(rank=2, alpha=8, target_modules=["q_proj", "down_proj"])
    return {"main": make_policy("main", base=base), "searcher": make_policy("searcher", base=base, adapter=few)}


@torch.no_grad()
def outputs(policy: Policy) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the model itself and of its dense copy."""
    with policy.active():
        own = policy.base.model(input_ids=IDS).logits
    with policy.sampling():
        return own, policy.base.model(input_ids=IDS).logits


def test_it_computes_the_same_for_each_role(team: dict[str, Policy]) -> None:
    logits = {}
    for role in ("main", "searcher", "main"):
        own, dense = outputs(team[role])
        assert torch.allclose(own, dense, atol=2e-4 * float(own.abs().max()))
        logits[role] = dense
    assert not torch.allclose(logits["main"], logits["searcher"], atol=1e-2)


def test_layers_are_dense_inside_of_the_block_only(team: dict[str, Policy]) -> None:
    model = team["main"].base.model
    before = dict(model.named_modules())
    kinds: set[str] = set()

    def interrupted() -> None:
        with team["main"].sampling():
            kinds.update(type(module).__name__ for path, module in model.named_modules() if path.endswith("_proj"))
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        interrupted()
    assert kinds == {"_DenseLinear"}
    after = dict(model.named_modules())
    assert after.keys() == before.keys()
    assert all(after[path] is before[path] for path in after)


def test_base_and_adapters_stay_as_they_are(team: dict[str, Policy]) -> None:
    model = team["main"].base.model
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for policy in team.values():
        outputs(policy)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_no_adapter_is_merged_into_the_four_bit_base(team: dict[str, Policy], tmp_path: Path) -> None:
    """Sampled from, trained and exported: the packed bytes stay, and the export is matrices A and B alone."""
    base = team["main"].base
    packed = [module for module in base.model.modules() if isinstance(module, Linear4bit)]
    assert packed
    before = [module.weight.detach().clone() for module in packed]
    for policy in team.values():
        outputs(policy)
        with policy.active():
            base.model(input_ids=IDS).logits.sum().backward()
        policy.save_peft(tmp_path / policy.role)
        names = load_file(tmp_path / policy.role / WEIGHTS_NAME)
        assert names
        assert all(".lora_A." in name or ".lora_B." in name for name in names)
    assert [module for module in base.model.modules() if isinstance(module, Linear4bit)] == packed
    assert all(module.weight.dtype == torch.uint8 for module in packed)
    assert all(torch.equal(weight, module.weight) for weight, module in zip(before, packed, strict=True))
    assert not any(layer.merged_adapters for layer in base.model.modules() if isinstance(layer, LoraLayer))


def test_it_follows_an_optimizer_step_and_a_loaded_state(team: dict[str, Policy]) -> None:
    policy = team["main"]
    start, (_, first) = policy.adapter_state(), outputs(policy)
    optimizer = torch.optim.AdamW(policy.named_parameters().values(), lr=0.1)
    for parameter in policy.named_parameters().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    own, stepped = outputs(policy)
    assert torch.allclose(own, stepped, atol=2e-4 * float(own.abs().max()))
    assert not torch.allclose(first, stepped, atol=1e-2)
    policy.load_adapter_state(start)
    assert torch.equal(outputs(policy)[1], first)


def test_sampled_log_probabilities_are_the_trainers(team: dict[str, Policy]) -> None:
    policy = team["main"]
    scheduler = Scheduler("rounds")
    sampler = TransformersSampler(policy, scheduler)
    prompt = IDS[0].tolist()

    async def turn(stream: int) -> SampledTurn:
        conversation = sampler.open(prompt, (stream,))
        try:
            return await conversation.sample(SamplingParams(24, policy.chat.stop_ids, 1.0), stream)
        finally:
            await asyncio.sleep(0)
            conversation.close()

    for sampled in scheduler.play([turn(stream) for stream in range(4)]):
        ids = torch.tensor([prompt + list(sampled.ids)])
        mask = torch.arange(ids.shape[1])[None] >= len(prompt)
        scored = action_logprobs(policy, ids, torch.tensor([ids.shape[1]]), mask, temperature=1.0)
        assert torch.allclose(scored, torch.tensor(sampled.logprobs), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_the_copy_are_those_of_the_products_beside_each_layer(
    make_base: Callable[..., Base], make_policy: MakePolicy, dtype: torch.dtype
) -> None:
    """peft's layers are the oracle; float64 to rounding, and in 4 bit to what dequantising differs by."""
    base = make_base("nf4" if dtype == torch.float32 else "none")
    if dtype == torch.float64:
        base.model.double()
    base.dense = DenseCopy(base.model)
    policy = make_policy("main", base=base)
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(v.shape, generator=generator) / 8 for name, v in policy.adapter_state().items()}
    policy.load_adapter_state(state)
    scores, gradients = [], []
    for selected in (policy.active, policy.updating):
        with selected():
            loss = base.model(input_ids=IDS.repeat(2, 1)).logits.log_softmax(-1)[:, :, 5].mean()
        loss.backward()
        scores.append(loss.detach())
        gradients.append({name: p.grad for name, p in policy.named_parameters().items() if p.grad is not None})
        for p in policy.named_parameters().values():
            p.grad = None
    tolerance = 1e-3 if dtype == torch.float32 else 1e-12
    assert torch.allclose(scores[0], scores[1], rtol=tolerance)
    own, copied = gradients
    assert own.keys() == copied.keys() == state.keys()
    for name, gradient in own.items():
        assert gradient.abs().max() > 0
        assert torch.allclose(gradient, copied[name], atol=tolerance * float(gradient.abs().max())), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 8, 33, 200])
@pytest.mark.parametrize("bias", [False, True])
def test_products_by_onednn_are_the_plain_one(dtype: torch.dtype, rows: int, *, bias: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, shift = (torch.randn(shape, generator=generator).to(dtype) for shape in ((2, rows, 48), (70, 48), (70,)))
    copy = packed(weight)
    if copy is None:
        assert dtype == torch.bfloat16
        pytest.skip("this CPU's oneDNN does not multiply in bfloat16")
    exact = x.double() @ weight.double().T + (shift.double() if bias else 0)
    transposed = weight.T.contiguous().T
    for found in (
        packed_product(x, copy, shift if bias else None),
        product(x, weight, shift if bias else None),
        product(x, transposed, shift if bias else None),
    ):
        assert found.dtype == dtype
        assert torch.allclose(found.double(), exact, atol=1e-5 if dtype == torch.float32 else 0.05, rtol=1e-2)


def test_a_type_that_onednn_does_not_multiply_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packed(torch.ones(4, 4, dtype=torch.float64)) is None
    assert product(torch.ones(1, 4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float64), None).sum() == 16
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    assert packed(torch.ones(4, 4)) is None
    assert product(torch.ones(1, 4), torch.ones(4, 4), None).sum() == 16


def test_the_head_keeps_its_weight(team: dict[str, Policy]) -> None:
    base = team["main"].base
    weight = base.model.get_output_embeddings().weight
    with team["main"].sampling():
        head = base.model.get_output_embeddings()
        assert isinstance(head, _DenseLinear)
        assert head.weight.data_ptr() == weight.data_ptr()


def test_updates_in_a_short_type_keep_the_adapter_apart(
    make_base: Callable[..., Base], make_policy: MakePolicy
) -> None:
    base = make_base("none")
    base.model.bfloat16()
    base.dense = DenseCopy(base.model)
    policy = make_policy("main", base=base)
    with policy.updating():
        assert any(isinstance(module, LoraLayer) for module in base.model.modules())
    with policy.sampling():
        assert not any(isinstance(module, LoraLayer) for module in base.model.modules())
