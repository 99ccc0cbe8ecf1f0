"""Mismatch benchmark: trainer's against sampler's log-probabilities by quantisation, dtype and temperature.

    python -m benchmarks.paper.mismatch [--config configs/quickstart.yaml] [--record [NAME]]

Plays one step of the team at each setting and, from its journal, recomputes the log-probability of every sampled token
with the adapters of the start, as an update does. abs(log rho) should be 0; what is left is numerics.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.records import add_option, keep
from benchmarks.tables import markdown
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.modules.microbatch import collate, split
from mgrpo_lightning.policy.logprobs import prefix_tree_logprobs
from mgrpo_lightning.records.batch import TrainingRow
from mgrpo_lightning.records.journal import read_groups

NAME = "paper/mismatch"
NUMERICS = {
    "nf4 + fp32": ("nf4", "float32"),
    "nf4 + bf16": ("nf4", "bfloat16"),
    "bf16": ("none", "bfloat16"),
}
ROLES = ("main", "searcher")
TEMPERATURES = (0.6, 1.0, 1.3)
TOKENS = 8192


def measure(config: str, numerics: str, temperature: float) -> dict[str, tuple[float, float]]:
    """Mean and maximum of abs log rho by role.

    Args:
        config: Team file.
        numerics: A key of ``NUMERICS``.
        temperature: Of every role.
    """
    quantization, dtype = NUMERICS[numerics]
    with tempfile.TemporaryDirectory() as folder:
        options = [
            f"--run.root={folder}",
            f"--model.quantization={quantization}",
            f"--model.compute_dtype={dtype}",
            "--trainer.max_steps=1",
            "--trainer.num_sanity_val_steps=0",
            "--trainer.limit_val_batches=0",
            "--trainer.enable_progress_bar=false",
        ]
        options += [f"--model.roles.{role}.sampling.temperature={temperature}" for role in ROLES]
        cli = make_cli(["--config", config, *options], run=False)
        cli.trainer.fit(cli.model, cli.datamodule)
        groups = read_groups(Path(cli.trainer.default_root_dir) / "journal" / "step-000000.parquet")
    gaps: defaultdict[str, list[torch.Tensor]] = defaultdict(list)
    for role in ROLES:
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        trajectories = [t for rollout in rollouts for t in rollout.trajectories(role)]
        policy = cli.model.policies[role]
        played = [row for t in trajectories for row in TrainingRow.of(t, advantage=0, coefficient=0)]
        for rows, prefix_tree in split(played, TOKENS):
            micro = collate(rows, prefix_tree, policy.device)
            with torch.no_grad(), policy.reference():
                logprobs = prefix_tree_logprobs(
                    policy.base.model, micro.prefix_tree, micro.scored, temperature=temperature
                )
            gaps[role].append((logprobs[micro.places] - micro.behaviour).abs())
    merged = {role: torch.cat(values) for role, values in gaps.items()}
    return {role: (float(values.mean()), float(values.max())) for role, values in merged.items()}


def table(*results: Sequence[dict[str, Any]]) -> str:
    """Mean and maximum of abs log rho, in Markdown, a line for each setting.

    Args:
        results: Of ``main``.
    """
    settings: defaultdict[tuple[str, float], list[str]] = defaultdict(list)
    for f in (f for result in results for f in result):
        settings[f["numerics"], f["temperature"]] += [f"{f['mean']:.2e}", f"{f['max']:.2e}"]
    columns = [f"{role}: {figure}" for role in ROLES for figure in ("mean", "max")]
    return markdown(("numerics", "temperature", *columns), ((*one, *cells) for one, cells in settings.items()))


def main() -> None:
    """Measure every setting and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.yaml", help="team file")
    add_option(parser, NAME)
    arguments = parser.parse_args()
    figures = []
    for numerics in NUMERICS:
        for temperature in TEMPERATURES:
            for role, (mean, largest) in measure(arguments.config, numerics, temperature).items():
                figures.append(
                    {"numerics": numerics, "temperature": temperature, "role": role, "mean": mean, "max": largest}
                )
    print(table(figures))
    keep(arguments.record, figures, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
