"""The sampler against fresh forward passes: log-probabilities, batches, forks, versions, schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.policy import tree_attention
from mgrpo_lightning.policy.cpu import decode_attention
from mgrpo_lightning.policy.cpu.decode_attention import SharedPrefix, attend_shared
from mgrpo_lightning.policy.loading import Base
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.base import SampledTurn, SamplingParams
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig
from tests.policy.sampling.player import MakePolicy, Spans, play


def recomputed(policy: Policy, played: Sequence[Spans], *, temperature: float) -> tuple[Tensor, Tensor]:
    """Stored and fresh log-probabilities of all actions."""
    rows = [[token for _, ids, _ in spans for token in ids] for spans in played]
    lengths = torch.tensor([len(row) for row in rows])
    ids, mask = (
        torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64),
        torch.zeros(len(rows), int(lengths.max())),
    )
    for i, (row, spans) in enumerate(zip(rows, played, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = torch.tensor([float(kind == "action") for kind, part, _ in spans for _ in part])
    stored = torch.tensor(
        [value for spans in played for _, _, values in spans for value in values], dtype=torch.float64
    )
    with torch.no_grad():
        fresh = action_logprobs(policy, ids, lengths, mask.bool(), temperature=temperature)
    return stored, fresh.double()


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.3])
@pytest.mark.parametrize("schedule", ["rounds", "eager"])
def test_stored_logprobs_are_those_of_a_fresh_forward(
    make_policy: MakePolicy, temperature: float, schedule: Literal["rounds", "eager"]
) -> None:
    # Rows 1 and 7: random ids are not what their text encodes to, so that re-encoding anywhere would show.
    policy = make_policy(quantization="nf4")
    played = play(policy, schedule, temperature=temperature)
    stored, fresh = recomputed(policy, played, temperature=temperature)
    assert len(stored) > 100
    assert float((stored - fresh).abs().max()) <= 1e-3
    for wrong in (0.6, 1.0, 1.3):
        if wrong != temperature:
            assert float((stored - recomputed(policy, played, temperature=wrong)[1]).abs().max()) > 1e-2
    other = make_policy("searcher", base=policy.base)
    assert float((stored - recomputed(other, played, temperature=temperature)[1]).abs().max()) > 1e-2


def test_rounds_are_bitwise_repeatable(make_policy: MakePolicy) -> None:
    policy = make_policy(quantization="nf4")
    assert play(policy) == play(policy)


def test_eager_and_rounds_sample_the_same_text(make_policy: MakePolicy) -> None:
    policy = make_policy(dtype=torch.float64)
    for ours, oracle in zip(play(policy, "eager"), play(policy, "rounds"), strict=True):
        assert [ids for _, ids, _ in ours] == [ids for _, ids, _ in oracle]


@pytest.mark.parametrize("names", [[3], [5, 2], [7, 6, 5, 4, 3]])
def test_a_conversation_does_not_depend_on_the_batch(make_policy: MakePolicy, names: list[int]) -> None:
    policy = make_policy(dtype=torch.float64)
    together = play(policy)
    for name, spans in zip(names, play(policy, names=names), strict=True):
        assert [ids for _, ids, _ in spans] == [ids for _, ids, _ in together[name]]
        for (_, _, ours), (_, _, oracle) in zip(spans, together[name], strict=True):
            assert ours == pytest.approx(oracle, abs=1e-5)


@pytest.mark.parametrize("schedule", ["rounds", "eager"])
def test_what_rows_share_is_read_once_and_nothing_changes(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch, schedule: Literal["rounds", "eager"]
) -> None:
    policy = make_policy(dtype=torch.float64)
    apart = play(policy, schedule)  # too little is shared to be worth it
    prefixes: list[SharedPrefix] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, prefix: SharedPrefix, scale: float) -> Tensor:
        prefixes.append(prefix)
        return attend_shared(query, key, value, mask, prefix, scale)

    monkeypatch.setattr(decode_attention, "CALL", 0)
    monkeypatch.setattr(tree_attention, "attend_shared", attend)
    for ours, oracle in zip(play(policy, schedule), apart, strict=True):
        for (_, ids, values), (_, other, others) in zip(ours, oracle, strict=True):
            assert ids == other
            assert values == pytest.approx(others, abs=1e-9)
    assert {len(prefix.starts) for prefix in prefixes} >= {1, 2}
    assert len({prefix.length for prefix in prefixes}) > 1


def test_a_fork_is_as_if_opened_anew(make_policy: MakePolicy) -> None:
    policy = make_policy(dtype=torch.float64)
    for forked, opened in zip(play(policy, fork=True), play(policy, fork=False), strict=True):
        assert [ids for _, ids, _ in forked] == [ids for _, ids, _ in opened]


def test_nested_forks_and_forks_after_a_turn(make_policy: MakePolicy) -> None:
    policy = make_policy(dtype=torch.float64)
    scheduler = Scheduler("rounds")
    sampler = TransformersSampler(policy, scheduler)
    params = SamplingParams(5, policy.chat.stop_ids)
    prompt = policy.chat.open("s", "u")

    async def tree(fork: bool) -> list[SampledTurn]:
        root = sampler.open(prompt, (0,))
        first = await root.sample(params, 1)
        root.extend(policy.chat.observe(["x"], after_cut=not first.stopped))
        left, right = root.fork(2)
        right.extend([5, 6, 7])
        leaves = [left, *right.fork(2)]
        return [first, *await asyncio.gather(*(leaf.sample(params, 2 + i) for i, leaf in enumerate(leaves)))]

    async def flat() -> list[SampledTurn]:
        first = await sampler.open(prompt, (0,)).sample(params, 1)
        start = [*prompt, *first.ids, *policy.chat.observe(["x"], after_cut=not first.stopped)]
        leaves = [sampler.open(start + more, (i,)) for i, more in enumerate(([], [5, 6, 7], [5, 6, 7]))]
        return [first, *await asyncio.gather(*(leaf.sample(params, 2 + i) for i, leaf in enumerate(leaves)))]

    (ours,), (oracle,) = scheduler.play([tree(True)]), scheduler.play([flat()])
    assert [turn.ids for turn in ours] == [turn.ids for turn in oracle]


def test_an_update_between_turns_is_a_new_version_with_its_own_cache(make_policy: MakePolicy) -> None:
    # Row 35: keys and values of the old adapter must not meet log-probabilities of the new one.
    policy = make_policy()
    sampler_scheduler = Scheduler("rounds")
    sampler = TransformersSampler(policy, sampler_scheduler)
    prompt = policy.chat.open("system", "question")
    params = SamplingParams(12, policy.chat.stop_ids)
    conversation = sampler.open(prompt, (0,))
    (first,) = sampler_scheduler.play([conversation.sample(params, 1)])
    with torch.no_grad():
        for parameter in policy.named_parameters().values():
            parameter.add_(0.2)
    policy.version += 1
    observed = policy.chat.observe(["r"], after_cut=not first.stopped)
    conversation.extend(observed)
    (second,) = sampler_scheduler.play([conversation.sample(params, 2)])
    assert (first.version, second.version) == (0, 1)
    spans: Spans = [("observation", (*prompt, *first.ids, *observed), ()), ("action", second.ids, second.logprobs)]
    stored, fresh = recomputed(policy, [spans], temperature=1.0)
    assert float((stored - fresh).abs().max()) <= 1e-3


def test_a_turn_ends_with_the_first_stop_id_which_has_a_logprob(make_policy: MakePolicy) -> None:
    policy = make_policy()
    scheduler = Scheduler("rounds")
    sampler = TransformersSampler(policy, scheduler)
    stop = tuple(range(0, 384, 9))
    prompt = policy.chat.open("s", "u")
    turns = scheduler.play(
        [sampler.open(prompt, (i,)).sample(SamplingParams(10, stop), stream_of(i)) for i in range(60)]
    )
    for turn in turns:
        assert len(turn.ids) == len(turn.logprobs)
        assert turn.stopped == (turn.ids[-1] in stop)
        assert turn.stopped or len(turn.ids) == 10
        assert not set(turn.ids[:-1]) & set(stop)
    assert {turn.stopped for turn in turns} == {True, False}


def test_rows_with_other_settings_make_batches_of_their_own(make_policy: MakePolicy) -> None:
    policy = make_policy(dtype=torch.float64)
    scheduler = Scheduler("rounds")
    sampler = TransformersSampler(policy, scheduler)
    prompt = policy.chat.open("s", "u")
    greedy, hot = (SamplingParams(8, policy.chat.stop_ids, temperature) for temperature in (0.0, 1.0))
    turns = scheduler.play([sampler.open(prompt, (i,)).sample((greedy, hot)[i % 2], 7) for i in range(4)])
    assert turns[0].ids == turns[2].ids != turns[1].ids == turns[3].ids
    with policy.active():
        ids = list(prompt)
        for token in turns[0].ids:
            assert int(policy.base.model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_closed_rows_are_used_again_and_an_abort_forgets_all(make_policy: MakePolicy) -> None:
    policy = make_policy()
    scheduler = Scheduler("rounds")
    sampler = TransformersSampler(policy, scheduler)
    prompt = policy.chat.open("s", "u")

    async def one(i: int) -> SampledTurn:
        conversation = sampler.open(prompt, (i,))
        turn = await conversation.sample(SamplingParams(4, policy.chat.stop_ids), 3)
        conversation.close()
        conversation.close()
        return turn

    results = [scheduler.play([one(i) for i in range(4)]) for _ in range(5)]
    assert sampler._cache.num_rows == 4
    assert all(result == results[0] for result in results)
    kept = sampler.open(prompt, (0,))
    first = scheduler.play([kept.sample(SamplingParams(4, policy.chat.stop_ids), 3)])[0]
    sampler.abort()
    second = scheduler.play([kept.sample(SamplingParams(4, policy.chat.stop_ids), 4)])[0]
    spans: Spans = [("observation", (*prompt, *first.ids), ()), ("action", second.ids, second.logprobs)]
    stored, fresh = recomputed(policy, [spans], temperature=1.0)
    assert float((stored - fresh).abs().max()) <= 1e-3


def test_sampling_leaves_mode_gradients_and_selection_alone(make_policy: MakePolicy) -> None:
    policy = make_policy()
    policy.base.model.train()
    play(policy, names=[0])
    assert policy.base.model.training
    assert all(parameter.grad is None for parameter in policy.named_parameters().values())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_other_models_and_attention_kernels(make_base: Callable[..., Base], family: str, attention: str) -> None:
    sizes: dict[str, Any] = {
        "vocab_size": 384,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.2,
        "attn_implementation": attention,
    }
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**sizes)) if family == "llama" else Qwen3ForCausalLM(Qwen3Config(**sizes))
    model.requires_grad_(False)
    model.train(False)
    base = Base(name="tiny", model=model, tokenizer=make_base().tokenizer)
    policy = Policy("main", RoleConfig("tiny", adapter=AdapterConfig(rank=2, alpha=4)), base, seed=0)
    stored, fresh = recomputed(policy, play(policy, names=range(5)), temperature=1.0)
    assert float((stored - fresh).abs().max()) <= 1e-4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_end_with_an_error_that_names_the_role(
    make_policy: MakePolicy, temperature: float, value: float
) -> None:
    policy = make_policy("searcher")
    with torch.no_grad():
        next(iter(policy.named_parameters().values()))[0, 0] = value
    with pytest.raises(MgrpoError, match=r"role 'searcher' computes logits that are not finite, after 0 updates.*HINT"):
        play(policy, temperature=temperature)
