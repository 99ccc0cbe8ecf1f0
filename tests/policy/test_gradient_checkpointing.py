"""Gradient checkpointing: bitwise the same gradients from far less that is kept, and sampling is not touched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.gradient_checkpointing import recomputed_layers
from mgrpo_lightning.policy.loading import Base
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig

IDS = torch.arange(60).reshape(2, 30) % 17 + 1


def kept_and_gradients(policy: Policy, *, again: bool) -> tuple[int, dict[str, Tensor]]:
    """Bytes that the forward pass keeps for the backward pass, without weights, and the gradients."""
    model = policy.base.model
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    mask = torch.ones_like(IDS, dtype=torch.bool)
    mask[:, 0] = False
    with policy.active(), recomputed_layers(model) if again else nullcontext():
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logprobs = action_logprobs(model, IDS, torch.tensor([30, 30]), mask, temperature=1.0)
        logprobs.sum().backward()
    gradients = {name: p.grad for name, p in policy.named_parameters().items() if p.grad is not None}
    for parameter in policy.named_parameters().values():
        parameter.grad = None
    return sum(kept.values()), gradients


@pytest.fixture
def policy(make_base: Callable[..., Base]) -> Policy:
    role = RoleConfig("tiny", adapter=AdapterConfig(rank=4, target_modules=["q_proj", "down_proj"]))
    made = Policy("main", role, make_base(), seed=0)
    for parameter in made.named_parameters().values():
        nn.init.normal_(parameter, std=0.1)
    return made


def test_gradients_are_bitwise_the_same_and_less_is_kept(policy: Policy) -> None:
    plain, expected = kept_and_gradients(policy, again=False)
    fewer, gradients = kept_and_gradients(policy, again=True)
    assert fewer < plain / 2
    assert gradients.keys() == expected.keys() == policy.named_parameters().keys()
    assert all(torch.equal(gradients[name], gradient) for name, gradient in expected.items())


def test_afterwards_the_base_is_as_before(policy: Policy) -> None:
    model: PreTrainedModel = policy.base.model
    with recomputed_layers(model):
        assert not any(module.training for module in model.modules() if isinstance(module, nn.Linear | nn.Dropout))
    assert not any(module.training for module in model.modules())
    assert model(input_ids=IDS, use_cache=True).past_key_values.get_seq_length() == 30


def test_an_architecture_without_such_layers_is_refused() -> None:
    refused = pytest.raises(
        ConfigurationError, match=r"the layers of Linear.* HINT: set `gradient_checkpointing: false`"
    )
    with refused, recomputed_layers(nn.Linear(1, 1)):  # type: ignore[arg-type]
        pass
