"""Credit benchmark: measure a report's effect on main's success by forks, and correlate it with its advantage.

    python -m benchmarks.paper.credit RUN [--step 6] [--questions 64] [--copies 16]

Groups are played with the adapters of one step, as in training. Of every group whose searchers' advantages differ, one
invocation is drawn and its rollout forked there: ``--copies`` continuations with the report as it was, and as many
with that sub trajectory alone sampled anew. What the report was worth is the difference of main's success in both. It
is correlated with the advantage that the sub trajectory was assigned in its group, with the reward's expert term and
without it. The interval is of a bootstrap over questions. A perfect advantage would not correlate with 1, as the
effects are measured with noise: ``ceiling`` is the square root of the reliability of the measured effects, from two
halves of the copies. The figures are among the records; a picture goes to docs/pictures.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from benchmarks.paper.forking import Fork, ForkingSampler
from benchmarks.paper.trained_team import TrainedTeam
from benchmarks.pictures import FOLDER, save
from benchmarks.records import add, read
from benchmarks.tables import markdown
from mgrpo_lightning.algorithm.config import RewardConfig
from mgrpo_lightning.algorithm.rewards import reward
from mgrpo_lightning.data.aligned_batches import align_role
from mgrpo_lightning.records.trajectory import Group, Rollout

NAME = "paper/credit"
PER_PLAY = 16
"""Forks that are played at once."""
DRAWS = 2000
"""Of the bootstrap."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Measured:
    """One invocation."""

    level: str
    advantage: float
    """With the reward of the team file."""
    without_expert: float
    """Without its expert term."""
    kept: list[float]
    """Main's success in the continuations of the report as it was."""
    fresh: list[float]
    """And where the sub trajectory was sampled anew."""

    def effect(self, part: slice = slice(None)) -> float:
        """What the report was worth, in main's success.

        Args:
            part: Of the copies.
        """
        return statistics.fmean(self.kept[part]) - statistics.fmean(self.fresh[part])


def advantages(groups: Sequence[Group], team: TrainedTeam, role: str, weights: RewardConfig) -> dict[Any, float]:
    """The advantage of each of a role's trajectories, by its key.

    Args:
        groups: Scored.
        team: Whose objective and alignment.
        role: Whose trajectories.
        weights: Of the reward's components.
    """

    def again(rollout: Rollout) -> Rollout:
        scores = dict(rollout.scores)
        for t in rollout.trajectories(role):
            one = scores[t.key.invocation]
            total = reward(
                weights, valid=t.valid, correct=one.correct, correct_main=one.correct_main, expert=one.expert
            )
            scores[t.key.invocation] = replace(one, total=total)
        return replace(rollout, scores=scores)

    scored = [replace(group, rollouts=[again(rollout) for rollout in group.rollouts]) for group in groups]
    objective = team.module.roles[role].objective
    rows = align_role(scored, role, objective, team.data.alignment, seed=0, step=0).rows
    return {row.key: row.advantage for row in rows}


def measure(team: TrainedTeam, role: str, *, questions: int, copies: int) -> list[Measured]:
    """Play groups, fork one invocation of each, and compare.

    Args:
        team: With the adapters that are examined.
        role: Which sub-agent's invocations.
        questions: How many groups.
        copies: Continuations of each kind.
    """
    asked = team.task.questions("train")[:questions]
    groups = [
        group
        for start in range(0, len(asked), PER_PLAY // 2)
        for group in team.play(asked[start : start + PER_PLAY // 2], rollouts=team.data.rollouts_per_query, seed=start)
    ]
    weights = team.module.roles[role].weights
    found: list[Measured] = []
    chosen: list[tuple[Group, Fork, float, float]] = []
    for number, group in enumerate(groups):
        assigned = advantages([group], team, role, weights)
        plain = advantages([group], team, role, replace(weights, expert=0.0))
        if not any(assigned.values()):
            continue
        key = random.Random(number).choice(sorted(assigned))
        rollout = group.rollouts[key.rollout]
        chosen.append((group, Fork.at(rollout, key.invocation, kept=copies), assigned[key], plain[key]))
    for start in range(0, len(chosen), PER_PLAY):
        part = chosen[start : start + PER_PLAY]
        forks = [fork for _, fork, _, _ in part]
        samplers = {name: ForkingSampler(sampler, forks) for name, sampler in team.samplers.items()}
        played = team.play(
            [group.question for group, *_ in part], rollouts=2 * copies, seed=10_000 + start, samplers=samplers
        )
        for (group, _, one, other), continued in zip(part, played, strict=True):
            right = [rollout.scores[0].correct for rollout in continued.rollouts]
            found.append(Measured(group.question.level, one, other, right[:copies], right[copies:]))
        print(f"{len(found)} of {len(chosen)} invocations forked", flush=True)
    return found


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's; 0 where either does not vary.

    Args:
        x: Numbers.
        y: As many.
    """
    return statistics.correlation(x, y) if len(set(x)) > 1 and len(set(y)) > 1 else 0.0


def interval(found: Sequence[Item], figure: Callable[[Sequence[Item]], float]) -> tuple[float, float]:
    """95% of a bootstrap over the invocations, one a question.

    Args:
        found: What is known of each; at least two.
        figure: What is computed of each draw.
    """
    chance = random.Random(0)
    drawn = sorted(figure(chance.choices(found, k=len(found))) for _ in range(DRAWS))
    return drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS) - 1]


def ceiling(found: Sequence[Measured]) -> float:
    """The largest correlation that the noise of the effects leaves: the root of their reliability (Spearman-Brown).

    Args:
        found: With an even number of copies.
    """
    halves = [[one.effect(slice(half, None, 2)) for one in found] for half in (0, 1)]
    r = max(correlation(*halves), 0.0)
    return math.sqrt(2 * r / (1 + r))


def table(records: Mapping[str, Sequence[Measured]]) -> str:
    """Correlation of advantage and effect, with and without the expert term.

    Args:
        records: By step of the adapters; at least two of each.
    """
    columns = ("adapters of", "invocations", "advantage", "r with the effect", "95%", "same sign", "ceiling")
    return markdown(columns, (cells for step, found in records.items() for cells in _cells(step, found)))


def _cells(step: str, found: Sequence[Measured]) -> Iterator[Sequence[object]]:
    arms: Mapping[str, Callable[[Measured], float]] = {
        "with the expert term": lambda one: one.advantage,
        "without it": lambda one: one.without_expert,
    }
    for name, assigned in arms.items():
        pairs = [(assigned(one), one.effect()) for one in found]
        signs = [(advantage > 0) == (effect > 0) for advantage, effect in pairs if advantage and effect]
        low, high = interval(pairs, _correlated)
        figures = (f"{_correlated(pairs):.2f}", f"{low:.2f} to {high:.2f}", f"{sum(signs)} of {len(signs)}")
        yield f"step {step}", len(found), name, *figures, f"{ceiling(found):.2f}"


def _correlated(pairs: Sequence[tuple[float, float]]) -> float:
    advantages, effects = zip(*pairs, strict=True)
    return correlation(advantages, effects)


def draw(found: Sequence[Measured], path: Path) -> None:
    """Draw effects against advantages.

    Args:
        found: What was measured.
        path: The picture to write.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    names = {"advantage": "with the expert term", "without_expert": "without it"}
    for axes, (name, title) in zip(figure.subplots(1, 2, sharey=True), names.items(), strict=True):
        for level in sorted({one.level for one in found}):
            some = [one for one in found if one.level == level]
            axes.scatter([getattr(one, name) for one in some], [one.effect() for one in some], s=14, label=level)
        axes.set_title(f"advantage {title}")
        axes.set_xlabel("assigned advantage")
        axes.grid(alpha=0.3)
        axes.set_ylabel("measured effect on main's success")
        axes.legend()
    save(figure, path)


def report() -> str:
    """The tables of all records, run by run, whose pictures are drawn too."""
    runs: defaultdict[str, dict[str, list[Measured]]] = defaultdict(dict)
    for name, record in read(NAME).items():
        run, _, step = name.rpartition("-")
        runs[run][step] = [Measured(**one) for one in record]
        draw(runs[run][step], FOLDER / f"credit-{name}.png")
    return "\n\n".join(f"{run}:\n\n{table(records)}" for run, records in runs.items())


def main() -> None:
    """Measure, record, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--step", type=int, default=0, help="use the adapters of this step; 0: those at the start of the run"
    )
    parser.add_argument("--role", default="searcher")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--copies", type=int, default=16)
    arguments = parser.parse_args()
    team = TrainedTeam(arguments.run)
    if arguments.step not in team.steps:
        parser.error(f"--step must be a step with a checkpoint in {arguments.run}: {sorted(team.steps)}")
    team.take(team.steps[arguments.step])
    found = measure(team, arguments.role, questions=arguments.questions, copies=arguments.copies)
    name = f"{arguments.run.name}-{arguments.step}"
    add({f"{NAME}/{name}": [asdict(one) for one in found]})
    print(report())


if __name__ == "__main__":
    main()
