"""Multi-turn benchmark: team rollouts through our conversations, against ``generate`` called anew each turn.

    python -m benchmarks.speed.multiturn [--sizes 2M 22M 135M] [--dtype bfloat16] [--repeats 3]
                                         [--threads 1] [--record [NAME]]

Both sides get the same script: the rollouts of a query share their prompt; each has three to six turns of its own
lengths, and an observation of about 200 tokens after every turn but the last. Nothing ends a turn but its length.

- *conversations*: this package's sampler, from a dense copy as in the quickstart. Turns join and leave one running
  batch, keys and values stay between turns, and the shared prompt is computed once.
- *generate*: what TRL's tool loop does with transformers. Every turn, the conversations that go on are padded to one
  batch and computed from their start; the batch runs until its longest turn has ended.

Same model, same LoRA adapter, one process; the sides take turns. Before that, in float32, a greedy play of one query
must give the same ids on both sides (in bfloat16, where rounding breaks ties, lengths only). *tokens* are those that
went through the model, padding included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import GenerationConfig

from benchmarks.records import add_option, keep
from benchmarks.speed.fresh import Clock
from benchmarks.speed.script import PROMPT, Ids, Script, make_scripts
from benchmarks.speed.setting import ADAPTER, SHAPES, write_model
from benchmarks.tables import markdown
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.base import Conversation, SamplingParams
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.roles.config import RoleConfig

NAME = "speed/multiturn"
DType = Literal["float32", "bfloat16"]
PLAYED = {"2M": (4, 8), "22M": (4, 6), "135M": (4, 6)}
"""Queries, and rollouts of each, by size of the model."""


def converse(policy: Policy, scripts: Sequence[Script], temperature: float) -> list[Ids]:
    """Play through this package's sampler; the whole sequence of each rollout.

    Args:
        policy: Who plays.
        scripts: Sorted by query.
        temperature: 0 is greedy.
    """
    scheduler = Scheduler("eager")
    sampler = TransformersSampler(policy, scheduler)

    async def play(conversation: Conversation, script: Script, number: int) -> Ids:
        ids = list(script.prompt)
        for turn, length in enumerate(script.lengths):
            params = SamplingParams(max_new_tokens=length, stop_ids=(), temperature=temperature)
            ids += (await conversation.sample(params, stream_of(number, turn))).ids
            if turn < len(script.observations):
                conversation.extend(script.observations[turn])
                ids += script.observations[turn]
        conversation.close()
        return ids

    conversations: list[Conversation] = []
    for query in sorted({script.query for script in scripts}):
        group = [script for script in scripts if script.query == query]
        conversations += sampler.open(group[0].prompt, (query,)).fork(len(group))
    plays = zip(conversations, scripts, strict=True)
    return scheduler.play([play(conversation, script, n) for n, (conversation, script) in enumerate(plays)])


def generate(policy: Policy, scripts: Sequence[Script], temperature: float) -> list[Ids]:
    """Play through ``generate``, as TRL does: see its ``_generate_single_turn`` and ``_tool_call_loop``.

    Args:
        policy: Who plays.
        scripts: What.
        temperature: 0 is greedy.
    """
    model: Any = policy.base.model
    sequences = [list(script.prompt) for script in scripts]
    going = list(range(len(scripts)))
    turn = 0
    while going:
        width = max(len(sequences[i]) for i in going)
        padded = torch.tensor([[0] * (width - len(sequences[i])) + sequences[i] for i in going])
        seen = torch.tensor([[0] * (width - len(sequences[i])) + [1] * len(sequences[i]) for i in going])
        config = GenerationConfig(
            max_new_tokens=max(scripts[i].lengths[turn] for i in going),
            do_sample=temperature > 0,
            temperature=temperature or 1.0,
            top_k=0,
            pad_token_id=0,
            disable_compile=True,
        )
        with policy.active(), torch.no_grad():
            found = model.generate(input_ids=padded, attention_mask=seen, generation_config=config)
        for i, ids in zip(going, found[:, width:].tolist(), strict=True):
            sequences[i] += ids[: scripts[i].lengths[turn]]
            if turn < len(scripts[i].observations):
                sequences[i] += scripts[i].observations[turn]
        turn += 1
        going = [i for i in going if turn < len(scripts[i].lengths)]
    return sequences


SIDES: dict[str, Callable[[Policy, Sequence[Script], float], list[Ids]]] = {
    "conversations": converse,
    "generate": generate,
}


@contextmanager
def counted(policy: Policy) -> Iterator[list[int]]:
    """Count the tokens that go through the model, pass by pass.

    Args:
        policy: Whose model.
    """
    counts: list[int] = []
    hook = policy.base.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: counts.append(inputs[0].numel())
    )
    try:
        yield counts
    finally:
        hook.remove()


def measure(size: str, dtype: DType, queries: int, rollouts: int, repeats: int) -> dict[str, Any]:
    """Both sides on one model.

    Args:
        size: A key of ``SHAPES``.
        dtype: Of the base and its products.
        queries: Of a step.
        rollouts: K.
        repeats: Timed plays of each side.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), SHAPES[size])
        module = TeamModule(
            {"main": RoleConfig(base_model=folder, adapter=ADAPTER)},
            quantization="none",
            compute_dtype=dtype,
            dense_copy=True,
        )
        module.configure_model()
    policy = module.policies["main"]
    scripts = make_scripts(queries, rollouts, SHAPES[size].vocab)
    first = [script for script in scripts if script.query == 0]
    greedy = [play(policy, first, 0.0) for play in SIDES.values()]
    if dtype == "float32":
        assert greedy[0] == greedy[1], "greedy plays differ"
    clocks: dict[str, list[Clock]] = {side: [] for side in SIDES}
    tokens: dict[str, int] = {}
    for _ in range(repeats):
        for side, play in SIDES.items():
            clock = Clock()
            with counted(policy) as counts, clock.part("play"):
                played = play(policy, scripts, 1.0)
            clocks[side].append(clock)
            tokens[side] = sum(counts)
            assert [len(ids) for ids in played] == [
                PROMPT + sum(script.lengths) + sum(map(len, script.observations)) for script in scripts
            ]
    pairs = list(zip(clocks["conversations"], clocks["generate"], strict=True))
    return {
        "size": size,
        "dtype": dtype,
        "queries": queries,
        "rollouts": rollouts,
        "seconds": {side: [clock.seconds["play"] for clock in found] for side, found in clocks.items()},
        "cpu": {side: [clock.cpu["play"] for clock in found] for side, found in clocks.items()},
        "tokens": tokens,
        "faster": statistics.median(b.seconds["play"] / a.seconds["play"] for a, b in pairs),
        "less_cpu": statistics.median(b.cpu["play"] / a.cpu["play"] for a, b in pairs),
    }


def table(*results: Sequence[dict[str, Any]]) -> str:
    """Both sides of each model, in Markdown.

    Args:
        results: Of ``main``.
    """
    columns = ("model", "queries x K", *SIDES, "faster", "less CPU", "tokens through the model")
    rows = [
        (
            f"{f['size']} {f['dtype']}",
            f"{f['queries']} x {f['rollouts']}",
            *(f"{statistics.median(f['seconds'][side]):.1f} s" for side in SIDES),
            *(f"{f['faster']:.1f}", f"{f['less_cpu']:.1f}"),
            " against ".join(f"{f['tokens'][side]:,}" for side in SIDES),
        )
        for result in results
        for f in result
    ]
    return markdown(columns, rows)


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="number of threads; default: number of cores")
    add_option(parser, NAME)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    found = []
    for size in arguments.sizes:
        found.append(measure(size, arguments.dtype, *PLAYED[size], arguments.repeats))
        print(f"{size} measured", flush=True)
    print(table(found))
    keep(arguments.record, found, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
