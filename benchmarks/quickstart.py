"""The quickstart over seeds, beside what it is compared with: the same rollouts with less training, or no team.

    python -m benchmarks.quickstart [--seeds 0 1 2] [--arms team frozen_searcher] [--out runs/quickstart_bench]

Every arm and seed is one ``mgrpo fit`` with a run folder of its own; what is finished is not run again. The table has
held-out exact match before and after (median and range over the seeds) and the seconds of a fit. ``first_hit`` is no
training but a script: a demonstrator that always opens the first hit and otherwise makes no mistake.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgrpo_lightning.agents.scoring import score_groups
from mgrpo_lightning.agents.team import Team
from mgrpo_lightning.cli import make_cli
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.tasks import Factbook

TEAM = "configs/quickstart.yaml"
ARMS = {
    "team": ["--config", TEAM],
    "frozen_searcher": ["--config", TEAM, "--config", "configs/arms/frozen_searcher.yaml"],
    "single_agent": ["--config", "configs/arms/single_agent.yaml"],
}


def fit(arm: str, seed: int, out: Path) -> dict[str, Any]:
    """results.json of one arm and seed; runs it unless it is there.

    Args:
        arm: A key of ``ARMS``.
        seed: Run seed.
        out: Folder of all runs.
    """
    name = f"{arm}-{seed}"
    results = out / name / "results.json"
    if not results.exists() or "after" not in json.loads(results.read_text()):
        options = [f"--run.root={out}", f"--run.name={name}", f"--run.seed={seed}"]
        command = [sys.executable, "-m", "mgrpo_lightning", "fit", *ARMS[arm], *options]
        subprocess.run(command, check=True)
    found = json.loads(results.read_text())
    assert isinstance(found, dict)
    return found


def first_hit() -> float:
    """Exact match of the script that always opens the first hit, on the quickstart's held-out questions."""
    cli = make_cli(["--config", TEAM], run=False)
    roles, data = cli.model.roles, cli.datamodule
    bases = {config.base_model for config in roles.values()}
    tokenizers = {name: load_base(name, quantization="none", compute_dtype=cli.model.compute_dtype) for name in bases}
    chats = {role: Chat(tokenizers[config.base_model].tokenizer) for role, config in roles.items()}
    task = Factbook(hops=[1, 2], mistakes={"first_hit": 1.0})
    questions = task.questions(data.validation.split)[: data.validation.questions]
    team = Team(roles, chats, {}, task.tools(), scheduler=Scheduler("rounds"), seed=0)
    groups = team.play(questions, step=0, rollouts=1, script=task.script)
    score_groups(groups, task, roles)
    return statistics.mean(group.rollouts[0].scores[0].correct for group in groups)


def line(arm: str, runs: Sequence[dict[str, Any]]) -> str:
    """One line of the table.

    Args:
        arm: Its name.
        runs: Results of its seeds.
    """

    def spread(values: list[float]) -> str:
        return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"

    before = spread([run["before"]["exact_match"] for run in runs])
    after = spread([run["after"]["exact_match"] for run in runs])
    seconds = statistics.median(run["seconds"]["fit"] for run in runs)
    return f"| {arm} | {len(runs)} | {before} | {after} | {seconds:.0f} |"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart_bench"))
    parser.add_argument("--json", type=Path, help="where to write all results")
    arguments = parser.parse_args()
    found = {arm: [fit(arm, seed, arguments.out) for seed in arguments.seeds] for arm in arguments.arms}
    print("| arm | seeds | before | after | seconds |\n|---|---|---|---|---|")
    for arm, runs in found.items():
        print(line(arm, runs))
    print(f"| first_hit (script) | - | - | {first_hit():.3f} | - |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
