"""SmolLM2 benchmark: warm start and M-GRPO of SmolLM2-135M on two cores, by seed, resumable; before and after.

    python -m benchmarks.paper.smollm2_model            # the model, once
    python -m benchmarks.paper.smollm2 [--seeds 0 1]    # what is finished is not run again; what was cut off goes on

The warm start is one run, from which every seed begins. As soon as a seed ends, what it did is to be committed: its
figures and answers, which are among the records, and its curve. Tables of all records are printed: held-out exact match
before and after M-GRPO, the questions that became right and wrong, and a paired test; and by number of hops.

The test is exact and two-sided: if M-GRPO did nothing, each question's change could as well have had the other sign.
For one seed it is McNemar's. In the line of all seeds a question is one unit with the sum of its changes, as all seeds
answer the same questions from the same start.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.paper.paired import sign_flip
from benchmarks.pictures import FOLDER
from benchmarks.records import add, read
from benchmarks.runs import fit
from benchmarks.tables import markdown
from mgrpo_lightning.persistence.atomic import atomic_path
from mgrpo_lightning.records.journal import read_groups, training_files

TEAM = ("--config", "configs/smollm2_cpu.yaml")
WARM_START = (*TEAM, "--config", "configs/warm_start.yaml", "--config", "configs/smollm2/warm_start.yaml")
RUNS = Path("runs")
"""Where the team file looks for the warm start's adapters."""
NAME = "paper/smollm2"
TRIES = {
    f"{NAME}/temperature_0.7": ("2.5e-4", "1e-6", "0.7"),
    f"{NAME}/temperature_0.5": ("2.5e-4", "1e-6", "0.5"),
    NAME: ("1e-4", "0.06", "0.5"),
}
"""Learning rate, ``std_floor`` and temperature, by how names of the records begin; the last is the team file's."""


def record(folder: Path, results: dict[str, Any]) -> dict[str, Any]:
    """What a finished run did: its costs, its validations, and each question's answer before and after.

    Args:
        folder: The run folder.
        results: Its results.json.
    """
    first, *_, last = sorted((folder / "journal").glob("validation-??????.parquet"))
    before, after = (
        {group.question.id: int(group.rollouts[0].scores[0].correct) for group in read_groups(path)}
        for path in (first, last)
    )
    assert before.keys() == after.keys(), f"{first} and {last} ask different questions"
    return {
        "run": folder.name,
        "steps": results["steps"],
        "hours": results["seconds"]["fit"] / 3600,
        **trained(folder / "journal"),
        "history": results["history"],
        "right": {question: [before[question], after[question]] for question in before},
    }


def trained(journal: Path) -> dict[str, int]:
    """Tokens and sampled tokens of the trajectories that moved an adapter: without an advantage, none does.

    Args:
        journal: Of a run of M-GRPO.
    """
    tables = [
        pq.read_table(path, columns=["advantage", "num_tokens", "num_actions"], partitioning=None).to_pylist()
        for paths in training_files(journal).values()
        for path in paths
    ]
    rows = [row for table in tables for row in table if row["advantage"]]
    return {
        "trained_tokens": sum(row["num_tokens"] for row in rows),
        "trained_actions": sum(row["num_actions"] for row in rows),
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown, a line a run and one for all of them.

    Args:
        records: At least one.
    """
    columns = ("run", "questions", "before", "after", "became right", "became wrong", "p", "trained tokens", "hours")
    return markdown(columns, [*(_cells(one["run"], [one]) for one in records), _cells("all", records)])


def _cells(name: str, records: Sequence[dict[str, Any]]) -> Sequence[object]:
    questions = list(records[0]["right"])
    before, after = ([sum(one["right"][q][moment] for one in records) for q in questions] for moment in (0, 1))
    changes = [b - a for a, b in zip(before, after, strict=True)]
    answers = len(questions) * len(records)
    return (
        *(name, len(questions), f"{sum(before) / answers:.1%}", f"{sum(after) / answers:.1%}"),
        *(sum(change > 0 for change in changes), sum(change < 0 for change in changes), f"{sign_flip(changes):.2g}"),
        *(f"{sum(one['trained_tokens'] for one in records):,}", f"{sum(one['hours'] for one in records):.2f}"),
    )


def by_level(records: Sequence[dict[str, Any]]) -> str:
    """The table of accuracies before and after by level of the questions, a line a run.

    Args:
        records: At least one.
    """
    levels = sorted(records[0]["history"][0]["by_level"])
    columns = [f"{level} {moment}" for level in levels for moment in ("before", "after")]

    def share(one: dict[str, Any], level: str, at: int) -> str:
        return f"{one['history'][at]['by_level'][level]['exact_match']:.1%}"

    rows = [(one["run"], *(share(one, level, at) for level in levels for at in (0, -1))) for one in records]
    return markdown(("run", *columns), rows)


def tries(found: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """The table of accuracies of all tries, a line a try.

    Args:
        found: Records by the keys of ``TRIES``, each of the same seeds.
    """
    seeds = [f"seed {number}" for number in range(min(map(len, found.values())))]
    columns = ("try", "learning rate", "`std_floor`", "temperature", "before", *seeds, "all", "p")
    rows = []
    for number, (name, records) in enumerate(found.items(), 1):
        ends = (_cells("", [one])[3] for one in records[: len(seeds)])
        _, _, before, after, _, _, p, *_ = _cells("", records)
        rows.append((number, *TRIES[name], before, *ends, after, p))
    return markdown(columns, rows)


def report() -> str:
    """The tables of the last try's records, and one of all tries."""
    found = {name: records for name in TRIES if (records := list(read(name).values()))}
    last = found[NAME]
    return "\n\n".join([table(last), by_level(last), tries(found)])


def main() -> None:
    """Run what is missing; record each seed as it ends, and show all records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--base", help="folder or hub name that replaces the team file's base_model")
    arguments = parser.parse_args()
    roles = ("main", "searcher") if arguments.base else ()
    base = [f"--model.roles.{role}.base_model={arguments.base}" for role in roles]
    warm_start = fit([*WARM_START, *base], RUNS / "smollm2_warm_start")
    for seed in arguments.seeds:
        folder = RUNS / f"smollm2-{seed}"
        results = fit([*TEAM, *base, f"--run.seed={seed}"], folder)
        add({f"{NAME}/seed-{seed}": record(folder, results)})
        with atomic_path(FOLDER / f"smollm2-{seed}.png") as temporary:
            shutil.copy(folder / "learning_curve.png", temporary)
        print(f"warm start: {warm_start['seconds']['fit'] / 3600:.2f} hours\n\n{report()}", flush=True)


if __name__ == "__main__":
    main()
