"""The structured start: it copies before any training, and its parts are where the docstring says."""

import pytest
import torch
from transformers import LlamaForCausalLM

from benchmarks.pocket.evaluation import copied
from benchmarks.pocket.induction import induction_model, pocket_config


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return induction_model(pocket_config(1792), [[40, 300], [41, 301, 302]], seed=0)


@pytest.mark.parametrize("length", [20, 100])
def test_it_copies_random_strings_untrained(model: LlamaForCausalLM, length: int) -> None:
    assert copied(model, length=length) >= 0.9


def test_a_default_start_does_not_copy() -> None:
    torch.manual_seed(0)
    assert copied(LlamaForCausalLM(pocket_config(1792)).eval(), length=20) < 0.05


def test_layer_0_looks_one_two_and_three_tokens_back(model: LlamaForCausalLM) -> None:
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(input_ids=torch.arange(3, 63)[None], output_attentions=True).attentions[0][0]
    model.set_attn_implementation("sdpa")
    for head, distance in enumerate((1, 2, 3)):
        assert weights[head].diagonal(-distance)[5:].min() > 0.95


def test_twins_start_close_and_others_far(model: LlamaForCausalLM) -> None:
    table = torch.nn.functional.normalize(model.model.embed_tokens.weight.detach(), dim=1)
    shared = table.mean(0) / table.mean(0).norm()
    table = torch.nn.functional.normalize(table - (table @ shared)[:, None] * shared, dim=1)
    assert float(table[40] @ table[300]) > 0.6
    assert float(table[40] @ table[41]) < 0.6


def test_it_is_a_plain_small_llama(model: LlamaForCausalLM) -> None:
    assert model.config.tie_word_embeddings
    assert dict(model.config.rope_parameters or {})["rope_theta"] == 1e5
    assert 1e6 < sum(parameter.numel() for parameter in model.parameters()) < 3e6


def test_a_seed_fixes_the_weights() -> None:
    config = pocket_config(64, hidden=96, layers=3, ffn=64)
    first, second, other = (induction_model(config, [], seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
