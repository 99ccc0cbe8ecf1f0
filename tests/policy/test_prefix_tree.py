"""A prefix tree computes what its sequences give alone, with every token laid out once that sequences begin with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.lm_head import hidden_states
from mgrpo_lightning.policy.loading import Base
from mgrpo_lightning.policy.logprobs import prefix_tree_logprobs
from mgrpo_lightning.policy.prefix_tree import SHORTEST, PrefixTree, PrefixTreeBuilder
from mgrpo_lightning.policy.tree_attention import NAME, attend_by_prefix_tree, prefix_tree_states


def build(sequences: list[list[int]]) -> PrefixTree:
    return PrefixTree.of(torch.tensor(ids) for ids in sequences)


@st.composite
def families(draw: st.DrawFn) -> list[list[int]]:
    """Sequences that begin like others, fork in many places, end in others, or are the same."""
    sequences = [draw(st.lists(st.integers(1, 3), min_size=1, max_size=60))]
    for _ in range(draw(st.integers(0, 8))):
        parent = draw(st.sampled_from(sequences))
        kept = draw(st.integers(0, len(parent)))
        tail = draw(st.lists(st.integers(1, 3), max_size=40))
        sequences.append((parent[:kept] + tail) or [1])
    return sequences


@given(sequences=families(), ordered=st.booleans())
def test_every_sequence_is_there_and_its_tokens_see_just_those_before(
    sequences: list[list[int]], *, ordered: bool
) -> None:
    sequences = sorted(sequences) if ordered else sequences
    prefix_tree = build(sequences)
    visible = prefix_tree.dense_mask()[0, 0]
    for ids, path in zip(sequences, prefix_tree.paths, strict=True):
        assert prefix_tree.ids[path].tolist() == ids
        assert prefix_tree.positions[path].tolist() == list(range(len(ids)))
        assert prefix_tree.before[path].tolist() == [-1, *path[:-1].tolist()]
        for position, place in enumerate(path):
            assert visible[place].nonzero().flatten().tolist() == sorted(path[: position + 1].tolist())
    assert set(torch.cat(prefix_tree.paths).tolist()) == set(range(len(prefix_tree.ids)))


@given(sequences=families())
def test_attention_blocks_say_the_same_as_the_mask_over_all_pairs(sequences: list[list[int]]) -> None:
    prefix_tree = build(sequences)
    visible = prefix_tree.dense_mask()[0, 0]
    found = []
    for block in prefix_tree.blocks:
        height, width = block.queries.shape[1], block.keys.shape[1]
        plain = torch.ones(len(block.queries), 1, height, width, dtype=torch.bool).tril()
        mask = plain if block.mask is None else block.mask
        for keys, rows in zip(block.keys, mask[:, 0], strict=True):
            found += [sorted(keys[row].tolist()) for row in rows]
    for place, at in enumerate(prefix_tree.order.tolist()):
        assert found[at] == visible[place].nonzero().flatten().tolist()


@given(sequences=families())
def test_in_order_nothing_is_laid_out_twice_that_is_worth_sharing(sequences: list[list[int]]) -> None:
    sequences = sorted(sequences)
    builder, total = PrefixTreeBuilder(), 0
    for ids in sequences:
        cost = builder.cost(torch.tensor(ids))
        builder.add(torch.tensor(ids))
        total += cost
        assert builder.num_tokens == total
    prefix_tree = builder.build()
    assert len(prefix_tree.ids) == total
    least = len({tuple(ids[: n + 1]) for ids in sequences for n in range(len(ids))})
    assert least <= total <= least + (SHORTEST - 1) * (len(sequences) - 1)


def test_a_group_lays_its_prompt_out_once() -> None:
    prompt = list(range(100))
    prefix_tree = build([[*prompt, 1000 + i, *range(20 + i)] for i in range(8)])
    assert len(prefix_tree.ids) == 100 + sum(21 + i for i in range(8))
    assert [len(block.queries) for block in prefix_tree.blocks] == [1, 8]


@pytest.mark.parametrize("implementation", [NAME, "sdpa"])
def test_states_are_those_of_each_row_alone(make_base: Callable[..., Base], implementation: str) -> None:
    model = make_base(dtype=torch.float64).model
    model.set_attn_implementation(implementation)

    @settings(max_examples=25)
    @given(sequences=families())
    @torch.no_grad()
    def holds(sequences: list[list[int]]) -> None:
        prefix_tree = build(sequences)
        states = prefix_tree_states(model, prefix_tree)
        for ids, path in zip(sequences, prefix_tree.paths, strict=True):
            alone = hidden_states(model, torch.tensor([ids]))[0]
            torch.testing.assert_close(states[path], alone, rtol=1e-5, atol=1e-6)  # norms compute in float32, also here

    holds()


def test_a_change_in_one_sequence_is_seen_by_no_other(make_base: Callable[..., Base]) -> None:
    """Correctness.md 11, bitwise: neither behind a shared prefix nor in one attention block."""
    model = make_base().model
    prompt = list(range(1, 41))
    rows = [list(range(200, 240)), list(range(250, 290))] + [[*prompt, 50 + i, *range(60, 70 + i)] for i in range(4)]
    before, paths = prefix_tree_states(model, build(rows)), build(rows).paths
    for changed in range(len(rows)):
        others = [list(row) for row in rows]
        others[changed][-5:] = [300, 301, 302, 303, 304]
        after = prefix_tree_states(model, build(others))
        for row, path in enumerate(paths):
            assert torch.equal(after[path], before[path]) == (row != changed)


def test_log_probabilities_and_gradients_are_those_of_each_row_alone_too(make_base: Callable[..., Base]) -> None:
    model = make_base(dtype=torch.float64).model
    rows = [[*range(1, 31), 40 + i, *range(50, 55 + 3 * i)] for i in range(5)]
    prefix_tree = build(rows)
    attention = model.get_decoder().layers[0].self_attn
    weights = [layer.weight.requires_grad_() for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    alone = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row])).logits[0, :-1] / 0.8
        alone.append(torch.log_softmax(logits, -1).gather(-1, torch.tensor(row[1:])[:, None])[4::3, 0])
    plain = torch.cat(alone)
    expected = torch.autograd.grad((plain * torch.arange(len(plain))).sum(), weights)
    found = prefix_tree_logprobs(
        model, prefix_tree, torch.cat([path[5::3] for path in prefix_tree.paths]), temperature=0.8, chunk=7
    )
    gradients = torch.autograd.grad((found * torch.arange(len(plain))).sum(), weights)
    # transformers' norms compute in float32, also here
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6)
    for gradient, same in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, same, rtol=1e-4, atol=1e-4)


def test_a_model_that_does_not_hand_the_prefix_tree_on_gets_a_mask_over_all_pairs(
    make_base: Callable[..., Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_base().model
    model.set_attn_implementation("sdpa")
    decoder = model.get_decoder()
    forward = decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda prefix_tree=None, **inputs: forward(**inputs))
    attend_by_prefix_tree(model, "deaf")
    assert model.config._attn_implementation == "sdpa"
    monkeypatch.setattr(decoder, "forward", lambda prefix_tree=None, attention_mask=None, **inputs: forward(**inputs))
    with pytest.raises(ConfigurationError, match=r"deaf.*HINT"):
        attend_by_prefix_tree(model, "deaf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_deep_model_passes_in_each_compute_type_and_is_refused_if_its_rows_see_each_other(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    config = LlamaConfig(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,  # so that attention matters as in a trained model, and roundings add up
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    model.to(dtype=dtype)
    attend_by_prefix_tree(model, "deep")
    assert model.config._attn_implementation == NAME
    model.set_attn_implementation("sdpa")
    monkeypatch.setattr(
        PrefixTree, "dense_mask", lambda self: torch.ones(2 * [len(self.order)], dtype=torch.bool).tril()[None, None]
    )
    monkeypatch.setattr("mgrpo_lightning.policy.tree_attention.NAME", "sdpa")
    with pytest.raises(ConfigurationError, match="deep"):
        attend_by_prefix_tree(model, "deep")
