"""Scaling benchmark: CPU seconds of play and update as K, d, the number of turns or of roles grows.

    python -m benchmarks.speed.scaling [--size 2M] [--vary K d turns roles] [--threads 1] [--record [NAME]]

From one middle point (2 queries, K = 8, two calls a rollout, d = 2, four turns, main and one sub-agent role), one
number at a time is changed. Every conversation has a prompt of 128 tokens, of which 96 are its role's own, turns of 32
sampled tokens, and observations of 96 between them; rollouts of a query share main's prompt. Random weights, float32,
LoRA of rank 16, sampling from a dense copy. *d* is under ``duplicate_drop``, where it bounds how many of eight calls
are trained; with the number of roles, the calls stay the same in all and are shared out. Seconds are CPU time of the
process. ``python -m benchmarks.report speed/scaling`` draws the curves of the record.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.pictures import FOLDER, save
from benchmarks.records import add_option, keep, under
from benchmarks.speed.setting import ADAPTER, SHAPES, write_model
from benchmarks.tables import markdown
from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.data.aligned_batches import align_role
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.policy.sampling.base import SamplingParams
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Score, Segment, Span, Trajectory
from mgrpo_lightning.roles.config import RoleConfig

NAME = "speed/scaling"
ROLE_PROMPT, TASK, TURN, OBSERVATION = 96, 32, 32, 96


@dataclass(frozen=True)
class Work:
    """One step."""

    rollouts: int = 8
    """K."""
    slots: int = 2
    """d."""
    turns: int = 4
    subs: int = 1
    """Sub-agent roles."""
    queries: int = 2
    calls: int = 2
    """Sub-agent invocations of a rollout."""


VARIED: dict[str, tuple[str, tuple[int, ...]]] = {
    "K": ("rollouts", (2, 4, 8, 16, 32)),
    "d": ("slots", (1, 2, 4, 8)),
    "turns": ("turns", (1, 2, 4, 8, 16)),
    "roles": ("subs", (1, 2, 4)),
}
"""By what is varied: the field of Work, and its values."""


class Step:
    """Plays and updates one amount of work.

    Args:
        folder: Of the model.
        work: How much.
    """

    def __init__(self, folder: str, work: Work) -> None:
        self._work = work
        self._subs = [f"sub{number}" for number in range(work.subs)]
        role = RoleConfig(base_model=folder, adapter=ADAPTER)
        roles = {"main": replace(role, calls=self._subs), **dict.fromkeys(self._subs, role)}
        self.module = TeamModule(roles, quantization="none", token_budget=2048, dense_copy=True)
        self.module.configure_model()
        self._scheduler = Scheduler("rounds")
        policies = self.module.policies
        self._samplers = {name: TransformersSampler(policy, self._scheduler) for name, policy in policies.items()}

    def play(self) -> list[Group]:
        """All rollouts of the step, with scores that differ."""
        work = self._work
        keys = [
            Key(0, query, k, invocation)
            for query in range(work.queries)
            for k in range(work.rollouts)
            for invocation in range(1 + work.calls)
        ]
        played = dict(zip(keys, self._scheduler.play([self._converse(key) for key in keys]), strict=True))
        groups = []
        for query in range(work.queries):
            rollouts = []
            for k in range(work.rollouts):
                main, *subs = (played[Key(0, query, k, invocation)] for invocation in range(1 + work.calls))
                scores = {i: Score(format=0.0, total=(k * 7 + i * 3) % 11 / 10) for i in range(1 + work.calls)}
                rollouts.append(Rollout(main, subs, scores))
            groups.append(Group(Question(str(query), "", ()), rollouts))
        return groups

    def update(self, groups: list[Group]) -> None:
        """Gradients of every role.

        Args:
            groups: Of ``play``.
        """
        alignment = AlignmentConfig("duplicate_drop", self._work.slots)
        for name, config in self.module.roles.items():
            self.module.role_module(name).update(align_role(groups, name, config.objective, alignment, seed=0, step=0))

    async def _converse(self, key: Key) -> Trajectory:
        role = self._subs[(key.invocation - 1) % len(self._subs)] if key.invocation else "main"
        # main's task is the query's; every invocation has one of its own
        prompt = _ids(ROLE_PROMPT, role) + _ids(TASK, *(key if key.invocation else key[:2]))
        caller = 0 if key.invocation else None
        spans = [Span("observation", tuple(prompt))]
        trajectory = Trajectory(role, key, "", segments=[Segment(spans)], parent=caller)
        conversation = self._samplers[role].open(prompt, key)
        for number in range(self._work.turns):
            await asyncio.sleep(0)
            turn = await conversation.sample(SamplingParams(TURN, stop_ids=()), stream_of(*key, number))
            spans.append(Span("action", turn.ids, turn.logprobs, turn.version))
            if number + 1 < self._work.turns:
                observation = _ids(OBSERVATION, *key, number)
                conversation.extend(observation)
                spans.append(Span("observation", tuple(observation)))
        conversation.close()
        return trajectory


def _ids(count: int, *parts: int | str) -> list[int]:
    """Random ids that only depend on what they are for."""
    generator = torch.Generator().manual_seed(stream_of(*parts))
    found: list[int] = torch.randint(3, 300, (count,), generator=generator).tolist()
    return found


def measure(folder: str, work: Work) -> dict[str, float]:
    """CPU seconds and tokens of one step, after one that does not count.

    Args:
        folder: Of the model.
        work: How much.
    """
    step = Step(folder, work)
    step.update(step.play())
    times = [time.process_time()]
    groups = step.play()
    times.append(time.process_time())
    step.update(groups)
    times.append(time.process_time())
    tokens = sum(t.num_tokens for group in groups for rollout in group.rollouts for t in rollout.trajectories())
    return {"tokens": tokens, "play": times[1] - times[0], "update": times[2] - times[1]}


def draw(figures: Sequence[dict[str, Any]], path: Path) -> None:
    """Curves: seconds over each number that was varied.

    Args:
        figures: Of ``main``.
        path: Of the picture.
    """
    varied = list(dict.fromkeys(f["varied"] for f in figures))
    figure = Figure(figsize=(3.2 * len(varied), 3), layout="constrained")
    axes = figure.subplots(1, len(varied), squeeze=False)
    for axis, name in zip(axes[0], varied, strict=True):
        lines = [f for f in figures if f["varied"] == name]
        for part in ("play", "update"):
            axis.plot([f["value"] for f in lines], [f[part] for f in lines], marker="o", label=part)
        axis.set(xlabel=name, ylabel="CPU seconds", xlim=(0, None), ylim=(0, None))
        axis.legend()
    save(figure, path, dpi=120)


def table(*results: Sequence[dict[str, Any]]) -> str:
    """Seconds over each number that was varied, in Markdown.

    Args:
        results: Of ``main``.
    """
    figures = [f for result in results for f in result]
    rows = []
    for name in dict.fromkeys(f["varied"] for f in figures):
        lines = [f for f in figures if f["varied"] == name]
        seconds = (" / ".join(f"{f[phase]:.2f}" for f in lines) for phase in ("play", "update"))
        rows.append((name, " / ".join(str(f["value"]) for f in lines), *seconds))
    return markdown(("varied", "values", "play, CPU s", "update, CPU s"), rows)


def report() -> str:
    """The table of all records, whose picture is drawn too."""
    results = [record["result"] for record in under(NAME).values()]
    draw([f for result in results for f in result], FOLDER / "scaling.png")
    return table(*results)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SHAPES), default="2M")
    parser.add_argument("--vary", nargs="+", choices=list(VARIED), default=list(VARIED))
    parser.add_argument("--threads", type=int, help="number of threads; default: number of cores")
    add_option(parser, NAME)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), SHAPES[arguments.size])
        for name in arguments.vary:
            field, values = VARIED[name]
            for value in values:
                work = replace(Work(calls=8) if name == "d" else Work(), **{field: value})
                figures.append({"varied": name, "value": value, **measure(folder, work)})
                print(f"{name} = {value} measured", flush=True)
    print(table(figures))
    keep(arguments.record, figures, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
