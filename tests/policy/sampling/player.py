"""Agents for tests of the sampler: a few turns with results of different lengths between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal

from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.base import Conversation, SamplingParams
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler

MakePolicy = Callable[..., Policy]
Spans = list[tuple[str, tuple[int, ...], tuple[float, ...]]]
"""What an agent keeps: kind, ids and log-probabilities."""


async def play_agent(
    policy: Policy,
    conversation: Conversation,
    prompt: Sequence[int],
    name: int,
    *,
    turns: int = 3,
    temperature: float = 1.0,
) -> Spans:
    """Sample some turns with results of different lengths between them, as an agent does."""
    spans: Spans = [("observation", tuple(prompt), ())]
    for turn in range(turns):
        params = SamplingParams(6 + 7 * (name % 3), policy.chat.stop_ids, temperature)
        sampled = await conversation.sample(params, stream_of("test", name, turn))
        spans.append(("action", sampled.ids, sampled.logprobs))
        if name % 2:
            await asyncio.sleep(0.001 * name)
        observed = policy.chat.observe(["r" * (5 * name + turn)] * (1 + turn % 2), after_cut=not sampled.stopped)
        conversation.extend(observed)
        spans.append(("observation", tuple(observed), ()))
    assert conversation.length == sum(len(ids) for _, ids, _ in spans)
    conversation.close()
    return spans


def play(
    policy: Policy,
    schedule: Literal["rounds", "eager"] = "rounds",
    *,
    names: Sequence[int] = range(8),
    fork: bool = True,
    cache_bytes: int | None = None,
    **options: Any,
) -> list[Spans]:
    """Two groups; each agent's stream and results depend on its name alone."""
    scheduler = Scheduler(schedule)
    sampler = TransformersSampler(policy, scheduler, cache_bytes=cache_bytes)
    groups: dict[int, list[int]] = {}
    for name in names:
        groups.setdefault(name % 2, []).append(name)
    agents, order = [], []
    for group, members in groups.items():
        prompt = policy.chat.open("system prompt", f"question {'about' * (1 + 3 * group)} {group}")
        if fork:
            conversations = sampler.open(prompt, (group,)).fork(len(members))
        else:
            conversations = [sampler.open(prompt, (group, i)) for i in range(len(members))]
        agents += [play_agent(policy, c, prompt, n, **options) for c, n in zip(conversations, members, strict=True)]
        order += members
    spans = scheduler.play(agents)
    assert not sampler.busy
    return [spans[order.index(name)] for name in names]
