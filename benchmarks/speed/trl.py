"""TRL benchmark: a GRPO step of one agent and one turn here and by TRL's trainer: seconds by part, peak memory.

    python -m benchmarks.speed.trl [--sizes 2M 22M 135M] [--lengths 512+64 256+128] [--dtypes float32 bfloat16]
                             [--arms trl ours] [--repeats 3] [--threads 1] [--record [NAME]]

Both sides train the same LoRA adapter in float32 on the same random-weight Llama, on the same prompts, and sample the
same number of tokens, none of which can end a completion: K = 8 completions a prompt, of ``prompt+completion`` tokens
(the first pair is that of agents, who read pages and say a line; the second nearer to that of puzzles). The base is in
float32 or, on CPUs that multiply it as fast (AVX512-BF16 or AMX), in bfloat16. Every figure is of a fresh process,
which warms up with one step; arms take turns. Peak memory is what the process rises above its memory before the first
step, with the model, the adapter and all imports there.

``ours`` has a dense copy, and gives freed memory back to the system (``MAPPED``; ``trl_mapped`` does so too,
``ours_heap`` does not). ``trl`` is TRL at its fastest setting on a CPU; its other arms are
what that was chosen from:

- weights in the type of the comparison, without autocast (its default), which would turn them anew in every pass;
  ``trl_autocast`` has it: float32 weights and bfloat16 products, whatever ``--dtypes`` says;
- no gradient checkpointing (``trl_checkpointing`` has it, as TRL does by default);
- micro-batches of 4 rows (``trl_rows1``, ``trl_rows2``, ``trl_rows8``; peak memory is mostly a matter of these);
- ``generate`` with its dynamic cache (``trl_static_cache``, ``trl_continuous``), all rows at once, no logits processor;
- no reference model (beta 0), no pass for old log-probabilities (one update a batch), nothing logged or saved.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.records import add_option, keep
from benchmarks.speed.fresh import MAPPED, MIB, run
from benchmarks.speed.setting import SHAPES, Step, write_model
from benchmarks.tables import markdown

NAME = "speed/trl"
QUERIES = {"2M": 2, "22M": 1, "135M": 1}
ROLLOUTS = 8
LENGTHS = ("512+64", "256+128")
TRL = {"rows": 4, "gradient_checkpointing": False}
OURS = {"token_budget": 2048, "dense_copy": True, "gradient_checkpointing": False}
ARMS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "trl": ("trl", TRL, {}),
    "ours": ("ours", OURS, MAPPED),
    "ours_lean": ("ours", OURS | {"dense_copy": False, "gradient_checkpointing": True}, MAPPED),
    "trl_checkpointing": ("trl", TRL | {"gradient_checkpointing": True}, {}),
    "ours_small": ("ours", OURS | {"token_budget": 800}, MAPPED),
    "trl_autocast": ("trl", TRL | {"dtype": "float32", "bf16": True}, {}),
    "trl_rows1": ("trl", TRL | {"rows": 1}, {}),
    "trl_rows2": ("trl", TRL | {"rows": 2}, {}),
    "trl_rows8": ("trl", TRL | {"rows": 8}, {}),
    "trl_static_cache": ("trl", TRL | {"cache_implementation": "static"}, {}),
    "trl_mapped": ("trl", TRL, MAPPED),
    "ours_heap": ("ours", OURS, {}),
    "trl_continuous": ("trl", TRL | {"use_transformers_continuous_batching": True}, {}),
}
"""By name: whose step, its options, and the allocator's variables."""
PARTS = ("generation", "update", "step")
"""Parts whose seconds are shown."""
Run = Mapping[str, Any]
"""What ``run`` gives."""


def measure(
    size: str, lengths: str, dtype: str, arms: list[str], repeats: int, steps: int
) -> dict[str, list[dict[str, Any]]]:
    """What fresh processes found, by arm, in the order of the repeats.

    Args:
        size: A key of ``SHAPES``.
        lengths: Tokens, as ``prompt+completion``.
        dtype: Of the base and its products.
        arms: Keys of ``ARMS``.
        repeats: Processes an arm.
        steps: Timed steps of a process.
    """
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    prompt, completion = map(int, lengths.split("+"))
    step = Step(queries=QUERIES[size], rollouts=ROLLOUTS, prompt=prompt, completion=completion)
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), SHAPES[size])
        for _ in range(repeats):
            for arm in arms:
                side, options, variables = ARMS[arm]
                arguments = {
                    "folder": folder,
                    "step": asdict(step),
                    "steps": steps,
                    "options": {"dtype": dtype} | options,
                }
                found[arm].append(run(f"benchmarks.speed.step_{side}", arguments, variables=variables))
    return found


def table(*results: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    """A table for each further arm beside the first, in Markdown: medians, and medians over repeats of the ratios.

    Seconds are those of ``PARTS``.

    Args:
        results: Of ``main``.
    """
    figures = {work: found for result in results for work, found in result.items()}
    first, *others = next(iter(figures.values()))
    return "\n\n".join(_beside(first, other, figures) for other in others or [first])


def _beside(first: str, other: str, figures: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    seconds, memory = ([f"{arm}, {unit}" for arm in (first, other)] for unit in ("s", "MiB"))
    columns = ("model", *seconds, "faster", "less CPU", *memory, "memory")
    rows = []
    for work, found in figures.items():
        pairs = list(zip(found[first], found[other], strict=True))
        gains = (
            statistics.median(a["seconds"]["step"] / b["seconds"]["step"] for a, b in pairs),
            statistics.median(a["cpu"] / b["cpu"] for a, b in pairs),
        )
        less = statistics.median(b["peak"] / a["peak"] for a, b in pairs)
        rows.append(
            (
                work,
                *(_seconds(found[arm]) for arm in (first, other)),
                *(f"{gain:.2f}" for gain in gains),
                *(f"{statistics.median(run['peak'] for run in found[arm]) / MIB:,.0f}" for arm in (first, other)),
                f"{less:.2f}",
            )
        )
    return markdown(columns, rows)


def _seconds(runs: Sequence[Run]) -> str:
    return " / ".join(f"{statistics.median(run['seconds'][part] for run in runs):.2f}" for part in PARTS)


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument(
        "--lengths", nargs="+", default=list(LENGTHS), help="tokens of prompt and completion, as PROMPT+COMPLETION"
    )
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=list(ARMS),
        default=["trl", "ours"],
        help="arms to run; ratios are relative to the first",
    )
    parser.add_argument("--repeats", type=int, default=3, help="number of processes for each arm and size")
    parser.add_argument("--steps", type=int, default=1, help="number of timed steps in a process")
    parser.add_argument("--threads", type=int, help="threads of each process; default: number of cores")
    add_option(parser, NAME)
    arguments = parser.parse_args()
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    figures = {}
    for work in itertools.product(arguments.sizes, arguments.lengths, arguments.dtypes):
        figures[" ".join(work)] = measure(*work, arguments.arms, arguments.repeats, arguments.steps)
        print(f"{' '.join(work)} measured", flush=True)
    print(table(figures))
    keep(arguments.record, figures, threads=arguments.threads or torch.get_num_threads())


if __name__ == "__main__":
    main()
