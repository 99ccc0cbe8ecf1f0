"""What the sampler's forward passes compute: everything once, in pieces that fit, and what the spans say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from mgrpo_lightning.policy.lm_head import hidden_states
from mgrpo_lightning.policy.sampling.base import SampledTurn, SamplingParams
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from tests.policy.sampling.player import MakePolicy, play


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The ids of every forward pass of the sampler."""
    seen: list[Tensor] = []

    def record(model: PreTrainedModel, ids: Tensor, **inputs: Any) -> Tensor:
        seen.append(ids.clone())
        return hidden_states(model, ids, **inputs)

    monkeypatch.setattr("mgrpo_lightning.policy.sampling.transformers.hidden_states", record)
    return seen


def test_a_shared_prefix_is_computed_once(make_policy: MakePolicy, passes: list[Tensor]) -> None:
    policy = make_policy()
    prompt = policy.chat.open("s" * 40, "u" * 40)
    scheduler = Scheduler("rounds")
    conversations = TransformersSampler(policy, scheduler).open(prompt, (0,)).fork(6)
    params = SamplingParams(1, policy.chat.stop_ids)
    scheduler.play([conversation.sample(params, i) for i, conversation in enumerate(conversations)])
    assert sum(ids.numel() for ids in passes) == len(prompt)


def test_conversations_that_say_the_same_are_computed_once(make_policy: MakePolicy, passes: list[Tensor]) -> None:
    policy = make_policy(dtype=torch.float64)
    prompt = policy.chat.open("s" * 40, "u" * 40)

    def computed(streams: list[int]) -> tuple[int, list[SampledTurn]]:
        """Tokens computed for conversations opened apart, and their second turns; greedy, so the first are alike."""
        scheduler = Scheduler("rounds")
        sampler = TransformersSampler(policy, scheduler)

        async def play(index: int) -> SampledTurn:
            conversation = sampler.open(prompt, (index,))
            await conversation.sample(SamplingParams(4, policy.chat.stop_ids, 0.0), 0)
            conversation.extend(policy.chat.observe(["r" * 30], after_cut=True))
            return await conversation.sample(SamplingParams(8, policy.chat.stop_ids, 1.0), streams[index])

        passes.clear()
        turns = scheduler.play([play(index) for index in range(len(streams))])
        return sum(ids.numel() for ids in passes if ids.shape[1] > 1), turns

    one, (alone,) = computed([5])
    three, (first, second, third) = computed([5, 6, 5])
    assert three == one
    assert (first.ids, third.ids) == (alone.ids, alone.ids)
    assert second.ids != first.ids
    assert first.logprobs == pytest.approx(alone.logprobs, abs=1e-6)


def test_a_conversation_is_never_computed_twice(make_policy: MakePolicy, passes: list[Tensor]) -> None:
    policy = make_policy()
    (spans,) = play(policy, names=[1], fork=False)
    computed = sum(len(ids) for _, ids, _ in spans[:-1]) - 1  # neither the last observation nor the last sampled id
    assert sum(ids.numel() for ids in passes) == computed


def test_prefill_is_cut_to_its_budget(
    make_policy: MakePolicy, passes: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(dtype=torch.float64)
    whole = play(policy, fork=False)
    passes.clear()
    monkeypatch.setattr("mgrpo_lightning.policy.sampling.prefill.PREFILL_TOKENS", 128)
    pieces = play(policy, fork=False)
    assert max(ids.numel() for ids in passes) <= 128
    assert [[ids for _, ids, _ in spans] for spans in pieces] == [[ids for _, ids, _ in spans] for spans in whole]


def test_any_text_stays_the_ids_that_were_seen_and_made(make_policy: MakePolicy, passes: list[Tensor]) -> None:
    # Row 1, for unicode and white space from outside: what the model computed is what the spans say.
    policy = make_policy()

    @settings(max_examples=25)
    @given(st.text(max_size=12), st.lists(st.text(alphabet=" \n\té世<|>", max_size=8), min_size=1, max_size=2))
    def check(question: str, results: list[str]) -> None:
        passes.clear()
        scheduler = Scheduler("rounds")
        conversation = TransformersSampler(policy, scheduler).open(prompt := policy.chat.open("s", question), (0,))
        spans: list[int] = list(prompt)

        async def agent() -> None:
            for turn in range(2):
                sampled = await conversation.sample(
                    SamplingParams(4, policy.chat.stop_ids, 1.3), stream_of(question, turn)
                )
                observed = policy.chat.observe(results, after_cut=not sampled.stopped)
                conversation.extend(observed)
                spans.extend([*sampled.ids, *observed])

        scheduler.play([agent()])
        assert conversation.length == len(spans)
        fed = torch.cat(passes, dim=1)[0].tolist()
        assert fed == spans[: len(fed)]
        assert len(fed) >= len(spans) - len(policy.chat.observe(results, after_cut=True)) - 1

    check()
