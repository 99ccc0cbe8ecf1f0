"""Random scripts of multi-turn rollouts: prompt ids, turn lengths and observations, the same for every sampler."""

from __future__ import annotations

from dataclasses import dataclass

import torch

PROMPT = 300
TURNS = (3, 6)
ACTION = (16, 96)
OBSERVATION = (120, 280)
Ids = list[int]


@dataclass(frozen=True)
class Script:
    """What one rollout will say: the lengths of its turns, and what it is shown after each but the last."""

    query: int
    prompt: Ids
    lengths: list[int]
    observations: list[Ids]


def make_scripts(queries: int, rollouts: int, vocab: int) -> list[Script]:
    """Scripts of random lengths and ids, the same ones at every call.

    Args:
        queries: Each with a prompt of its own.
        rollouts: K of a query.
        vocab: Ids are below that.
    """
    generator = torch.Generator().manual_seed(0)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def ids(length: int) -> Ids:
        found: Ids = torch.randint(0, vocab, (length,), generator=generator).tolist()
        return found

    prompts = [ids(PROMPT) for _ in range(queries)]
    turns = [(query, number(*TURNS)) for query in range(queries) for _ in range(rollouts)]
    return [
        Script(
            query,
            prompts[query],
            [number(*ACTION) for _ in range(count)],
            [ids(number(*OBSERVATION)) for _ in range(count - 1)],
        )
        for query, count in turns
    ]
