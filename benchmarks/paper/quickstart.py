"""Quickstart benchmark: exact match over seeds of team, frozen searcher, single agent, clean start and a script.

    python -m benchmarks.paper.quickstart [--seeds 0 1 2] [--arms team frozen_searcher] [--test]
                                          [--out runs/quickstart_bench] [--record [NAME]]

Every arm and seed is one ``mgrpo fit`` with a run folder of its own; what is finished is not run again. Arms:

- ``team``: the quickstart;
- ``frozen_searcher``: the same, but only main learns;
- ``single_agent``: one agent with all tools and the same context window, from a warm start of its own on the same
  imperfect demonstrator;
- ``clean``: the team from a warm start on demonstrations without mistakes: before is that warm start alone, after is
  M-GRPO on top; its gain is all on behaviour that was never demonstrated wrongly;
- ``first_hit``: no training but a script that always opens the first hit and otherwise makes no mistake.

The table has held-out exact match before and after (median and range over the seeds), the Wilson 95% interval of the
questions of one seed with that median, and the median seconds of a run. ``--test`` adds the same teams on the test
split, whose countries are neither trained nor validated on. A second table has the first seed of ``team`` by number of
hops, on the validation split.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import runs
from benchmarks.records import add_option, keep
from benchmarks.tables import markdown
from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.agents.scoring import score_groups
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.records.question import Split
from mgrpo_lightning.tasks import Factbook

NAME = "paper/quickstart"
TEAM = "configs/quickstart.yaml"
SINGLE = "configs/arms/single_agent.yaml"
WARM_STARTS = {
    "clean": ["--config", TEAM, "--config", "configs/warm_start.yaml"],
    "single": [
        *("--config", SINGLE, "--config", "configs/arms/single_warm_start.yaml"),
        *("--config", "configs/pocket/imperfect.yaml"),
    ],
}
"""Supervised runs that an arm starts from, where it does not start from the shipped adapters."""


@dataclass(frozen=True)
class Arm:
    """One line of the table."""

    configs: tuple[str, ...]
    roles: tuple[str, ...] = ()
    """Roles that start from ``warm_start`` instead of what the configs say."""
    warm_start: str = ""


ARMS = {
    "team": Arm((TEAM,)),
    "frozen_searcher": Arm((TEAM, "configs/arms/frozen_searcher.yaml")),
    "single_agent": Arm((SINGLE,), ("main",), "single"),
    "clean": Arm((TEAM,), ("main", "searcher"), "clean"),
}


def fit(arm: str, seed: int, out: Path) -> dict[str, Any]:
    """results.json of one arm and seed, without paths; runs it unless it is there.

    Args:
        arm: A key of ``ARMS``.
        seed: Run seed.
        out: Folder of all runs.
    """
    results = runs.fit([*options(arm, out), f"--run.seed={seed}"], out / f"{arm}-{seed}")
    return {name: entry for name, entry in results.items() if name != "paths"}


def tested(arm: str, seed: int, out: Path) -> dict[str, Any]:
    """Records of the test split before and after the run of one arm and seed; evaluates unless they are there.

    Args:
        arm: A key of ``ARMS``, which has been fitted.
        seed: Run seed.
        out: Folder of all runs.
    """
    records = {}
    for moment, name, checkpoint in (("before", f"{arm}-start", []), ("after", f"{arm}-{seed}", ["--ckpt_path=last"])):
        records[moment] = runs.tested([*options(arm, out), f"--run.seed={seed}", *checkpoint], out / name)
    return records


def options(arm: str, out: Path) -> list[str]:
    """What the command line of an arm is made of, its warm start included.

    Args:
        arm: A key of ``ARMS``.
        out: Folder of all runs.
    """
    described = ARMS[arm]
    words = [word for config in described.configs for word in ("--config", config)]
    for role in described.roles:
        words.append(f"--model.roles.{role}.adapter.path={warm_start(described.warm_start, out) / role}")
    return words


def warm_start(name: str, out: Path) -> Path:
    """The adapters of a supervised run; trains them unless they are there.

    Args:
        name: A key of ``WARM_STARTS``.
        out: Folder of all runs.
    """
    folder = out / f"warm_start-{name}"
    runs.fit(WARM_STARTS[name], folder)
    return folder / "adapters"


def first_hit(split: Split) -> dict[str, Any]:
    """Exact match of the script that always opens the first hit, on the quickstart's held-out questions; their number.

    Args:
        split: Which of them.
    """
    cli = make_cli(["--config", TEAM], run=False)
    roles, data = cli.model.roles, cli.datamodule
    bases = {config.base_model for config in roles.values()}
    tokenizers = {name: load_base(name, quantization="none", compute_dtype=cli.model.compute_dtype) for name in bases}
    chats = {role: Chat(tokenizers[config.base_model].tokenizer) for role, config in roles.items()}
    task = Factbook(hops=[1, 2], mistakes={"first_hit": 1.0})
    questions = task.questions(split)[: data.validation.questions]
    team = Players(roles, chats, {}, task.tools(), scheduler=Scheduler("rounds"), seed=0)
    groups = team.play(PlayRequest(questions, step=0, rollouts=1, script=task.script)).groups
    score_groups(groups, task, roles)
    right = statistics.mean(group.rollouts[0].scores[0].correct for group in groups)
    return {"exact_match": right, "questions": len(questions)}


def table(*results: Mapping[Split, Mapping[str, Sequence[dict[str, Any]]]]) -> str:
    """Exact match by split and arm, and of the team by level, in Markdown.

    Args:
        results: Of ``main``.
    """
    splits = dict.fromkeys(split for result in results for split in result)
    found = [(split, arm, seeds) for split in splits for one in results for arm, seeds in one.get(split, {}).items()]
    columns = ("split", "arm", "seeds", "before", "after", "of the seeds", "95% of the questions", "fit, s")
    parts = [markdown(columns, ((split, arm, *_cells(seeds)) for split, arm, seeds in found))]
    parts += [by_level(seeds[0]) for split, arm, seeds in found if (split, arm) == ("validation", "team")]
    return "\n\n".join(parts)


def _cells(seeds: Sequence[dict[str, Any]]) -> tuple[object, ...]:
    before, after = ([one[moment]["exact_match"] for one in seeds if moment in one] for moment in ("before", "after"))
    middle, questions = statistics.median(after), seeds[0]["after"]["questions"]
    interval = wilson(middle * questions, questions)
    trained = (f"{statistics.median(before):.1%}", f"{min(after):.1%} to {max(after):.1%}") if before else ("-", "-")
    seconds = [one["seconds"]["fit"] for one in seeds if "seconds" in one]
    return (
        *(len(before) or "-", trained[0], f"{middle:.1%}", trained[1]),
        " to ".join(f"{end:.1%}" for end in interval),
        f"{statistics.median(seconds):.0f}" if seconds else "-",
    )


def by_level(results: Mapping[str, Any]) -> str:
    """Exact match before and after by level of the questions, in Markdown.

    Args:
        results: results.json of a run.
    """
    moments = ("before", "after")
    rows = [
        (level, *(f"{results[moment]['by_level'][level]['exact_match']:.1%}" for moment in moments))
        for level in sorted(results["before"]["by_level"])
    ]
    return markdown(("level", *moments), [*rows, ("all", *(f"{results[m]['exact_match']:.1%}" for m in moments))])


def wilson(right: float, number: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Args:
        right: Successes.
        number: Trials, at least 1.
        confidence: Coverage.
    """
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / number
    centre = share + z * z / (2 * number)
    half = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    return (centre - half) / (1 + z * z / number), (centre + half) / (1 + z * z / number)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart_bench"))
    parser.add_argument("--test", action="store_true", help="also evaluate on the test split")
    add_option(parser, NAME)
    arguments = parser.parse_args()
    result: dict[Split, dict[str, list[dict[str, Any]]]] = {
        "validation": {arm: [fit(arm, seed, arguments.out) for seed in arguments.seeds] for arm in arguments.arms}
    }
    if arguments.test:
        result["test"] = {arm: [tested(arm, seed, arguments.out) for seed in arguments.seeds] for arm in arguments.arms}
    for split, found in result.items():
        found["first_hit"] = [{"after": first_hit(split)}]
    print(table(result))
    keep(arguments.record, result, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
