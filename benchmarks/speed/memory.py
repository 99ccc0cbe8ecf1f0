"""Memory benchmark: the plan of ``mgrpo fit --dry_run`` against the peak of a process that fills it.

    python -m benchmarks.speed.memory [--models 22M 135M] [--record [NAME]]

A planner and a searcher on one NF4 base of random weights: every conversation of a step is open at its full context at
once, then both roles are updated on rows of full context, twice. Each measurement is a fresh process; its peak is that
of resident memory above what Python and the libraries had before the base was loaded. Freed memory returns
to the system (``MAPPED``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.records import add_option, keep
from benchmarks.speed.fresh import MIB, PeakMemory, report, run
from benchmarks.speed.setting import SHAPES, write_model
from benchmarks.tables import markdown
from mgrpo_lightning.commands.dry_run import planned
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.policy.sampling.base import SampledTurn, Sampler, SamplingParams
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.records.batch import AlignedBatch, TrainingRow
from mgrpo_lightning.records.trajectory import Key

NAME = "speed/memory"
MODELS = ("22M", "135M")
QUERIES = (1, 4)
ROLLOUTS, CONTEXT, TURN, TOKEN_BUDGET = 8, 512, 64, 4096
ROLES = ("main", "searcher")


def options(folder: str, queries: int) -> list[str]:
    """The team file's changes.

    Args:
        folder: Of the base.
        queries: A step.
    """
    roles = [
        option
        for role in ROLES
        for option in (
            f"--model.roles.{role}.base_model={folder}",
            f"--model.roles.{role}.adapter={{rank: 16, alpha: 32, path: null}}",
            f"--model.roles.{role}.limits.context={CONTEXT}",
        )
    ]
    sizes = [f"--data.queries_per_step={queries}", f"--data.rollouts_per_query={ROLLOUTS}"]
    plain = ["--model.dense_copy=false", "--data.validation.per_batch=1", f"--model.token_budget={TOKEN_BUDGET}"]
    return ["--config", "configs/quickstart.yaml", *roles, *sizes, *plain]


def fill(folder: str, queries: int) -> dict[str, Any]:
    """Plan and measure in this process; figures in bytes.

    Args:
        folder: Of the base.
        queries: A step.
    """
    cli = make_cli(options(folder, queries), run=False)
    plan = planned(cli.model, cli.datamodule, on_gpu=cli.on_gpu)
    peak = PeakMemory()
    cli.model.configure_model()
    loaded = peak.rise()
    scheduler = Scheduler("eager")
    samplers = {role: TransformersSampler(policy, scheduler) for role, policy in cli.model.policies.items()}
    optimizer = cli.model.configure_optimizers()
    for step in range(2):
        turns = _play(scheduler, samplers, cli.model, queries * ROLLOUTS, step)
        for role in ROLES:
            cli.model.role_module(role).update(AlignedBatch(role, turns[role]))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {"planned": plan.total, "measured": peak.rise(), "loaded": loaded, "parts": asdict(plan)}


def _play(
    scheduler: Scheduler, samplers: dict[str, TransformersSampler], module: TeamModule, count: int, step: int
) -> dict[str, list[TrainingRow]]:
    """Rows of full context, whose conversations were all open together."""
    everyone = asyncio.Barrier(count * len(ROLES))
    generator = torch.Generator().manual_seed(step)

    async def converse(role: str, number: int, prompt: list[int]) -> tuple[list[int], SampledTurn]:
        sampler: Sampler = samplers[role]
        conversation = sampler.open(prompt, (number,))
        turn = await conversation.sample(SamplingParams(TURN, module.policies[role].chat.stop_ids), number)
        await everyone.wait()
        conversation.close()
        return prompt, turn

    prompts = torch.randint(3, 200, (len(ROLES), count, CONTEXT - TURN), generator=generator).tolist()
    played = scheduler.play([converse(role, i, prompts[r][i]) for r, role in enumerate(ROLES) for i in range(count)])
    return {
        role: [_row(*played[r * count + i], number=i, count=count, step=step) for i in range(count)]
        for r, role in enumerate(ROLES)
    }


def _row(prompt: list[int], turn: SampledTurn, *, number: int, count: int, step: int) -> TrainingRow:
    ids = torch.tensor([*prompt, *turn.ids])
    return TrainingRow(
        key=Key(step, number, 0, 0),
        ids=ids,
        mask=torch.arange(len(ids)) >= len(prompt),
        behaviour=torch.tensor(turn.logprobs),
        advantage=1.0 if number % 2 else -1.0,
        coefficient=1 / count,
        temperature=1.0,
        versions=(step,),
    )


def table(*results: Sequence[dict[str, Any]]) -> str:
    """The plan beside what was measured, in Markdown.

    Args:
        results: Of ``main``.
    """
    columns = ("base", "conversations a step", "planned MiB", "measured MiB", "planned / measured")
    rows = [
        (
            *(f["model"], 2 * f["queries"] * ROLLOUTS),
            *(f"{f[name] / MIB:,.0f}" for name in ("planned", "measured")),
            f"{f['planned'] / f['measured']:.2f}",
        )
        for result in results
        for f in result
    ]
    return markdown(columns, rows)


def main() -> None:
    """Measure every model and batch size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(MODELS))
    add_option(parser, NAME)
    arguments = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as root:
        for model in arguments.models:
            write_model(folder := Path(root) / model, SHAPES[model])
            for queries in QUERIES:
                found = run("benchmarks.speed.memory", {"folder": str(folder), "queries": queries})
                figures.append({"model": model, "queries": queries, **found})
                print(f"{model} with {queries} queries measured", flush=True)
    print(table(figures))
    keep(arguments.record, figures, threads=torch.get_num_threads())


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("{"):
        report(fill(**json.loads(sys.argv[1])))
        os._exit(0)  # the usual way out has taken over a minute here, for a reason not found
    else:
        main()
