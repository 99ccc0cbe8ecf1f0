"""Roofline benchmark: decoding and updates against this machine's matrix-product and memory-reading speed.

    python -m benchmarks.speed.roofline [--sizes 22M 135M] [--bases fp32 nf4 bf16] [--rows 8 32]
                                        [--threads 2] [--record [NAME]]

The limits are the speed of a large matrix product in the type that the base computes in, by torch or by oneDNN
directly, whichever is faster, and of reading memory. A decoding step has to read every linear weight once, and the keys
and values of each row, and to multiply; its limit is the longer of the two times. An update has to multiply: each
linear layer forward and for the gradient of its input, LoRA, attention over pairs that see each other, and the head at
sampled ids; nothing else is counted. *of the limit* is the limit's time divided by the measured one.

A group of K = 8 rollouts, 512 prompt and 64 completion tokens, LoRA of rank 16 on all linear layers of a random-weight
Llama. Bases: ``fp32`` and ``bf16`` are not quantised; ``nf4`` computes in float32 and samples from its 4-bit layers.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from benchmarks.records import add_option, keep
from benchmarks.speed.setting import ADAPTER, SHAPES, Shape, Step, write_model
from benchmarks.tables import markdown
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.policy.cpu.onednn import product
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.base import SamplingParams
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.policy.widths import bytes_per_token
from mgrpo_lightning.records.batch import AlignedBatch, TrainingRow
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.roles.config import RoleConfig

NAME = "speed/roofline"
BASES: dict[str, tuple[Literal["nf4", "none"], Literal["float32", "bfloat16"]]] = {
    "fp32": ("none", "float32"),
    "nf4": ("nf4", "float32"),
    "bf16": ("none", "bfloat16"),
}
"""Quantisation and compute type."""
STEP = Step(queries=1, rollouts=8, prompt=512, completion=64)
TURNS = (8, 40)
"""Lengths of two turns; the time of a decoding step is the difference of theirs, without the prefill."""


def product_speed(dtype: torch.dtype) -> float:
    """Floating-point operations a second in the largest square product that takes about half a second.

    Args:
        dtype: Of the matrices.
    """
    size = 256
    while True:
        a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        seconds = min(fastest(work, repeats=3) for work in (partial(torch.mm, a, b), partial(product, a, b, None)))
        if seconds > 0.1 or size == 4096:
            return 2 * size**3 / seconds
        size *= 2


def reading_speed() -> float:
    """Bytes a second of memory that no cache holds."""
    values = torch.ones(2**26)
    return values.nbytes / fastest(values.sum, repeats=5)


def fastest(work: Callable[[], object], *, repeats: int) -> float:
    """Seconds of the fastest of some runs, after one that does not count.

    Args:
        work: What to time.
        repeats: Runs.
    """
    work()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def linear_weights(policy: Policy) -> int:
    """Weights of all linear layers but the head, adapters not counted.

    Args:
        policy: Whose base.
    """
    head = policy.base.model.get_output_embeddings()
    layers = [m for name, m in policy.base.model.named_modules() if isinstance(m, nn.Linear) and ".lora_" not in name]
    return sum(layer.in_features * layer.out_features for layer in layers if layer is not head)


def update_operations(policy: Policy, shape: Shape) -> float:
    """Floating-point operations that one update of the group cannot do without.

    Args:
        policy: Its base and adapter.
        shape: Of the base.
    """
    tokens = STEP.prompt + STEP.rollouts * STEP.completion
    sampled = STEP.rollouts * STEP.completion
    pairs = STEP.prompt**2 / 2 + STEP.rollouts * STEP.completion * (STEP.prompt + STEP.completion / 2)
    adapter = sum(parameter.numel() for parameter in policy.named_parameters().values())
    return (
        2 * 2 * linear_weights(policy) * tokens
        + 3 * 2 * adapter * tokens
        + (2 + 5) * 2 * shape.layers * shape.hidden * pairs  # products: 2 forward, 5 backward
        + 2 * 2 * shape.vocab * shape.hidden * sampled
    )


def update_seconds(module: TeamModule) -> float:
    """Of one update of the group.

    Args:
        module: One role, main.
    """
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(3, 300, (STEP.prompt,), generator=generator)
    rows = []
    for k in range(STEP.rollouts):
        ids = torch.cat([prompt, torch.randint(3, 300, (STEP.completion,), generator=generator)])
        mask = torch.arange(len(ids)) >= STEP.prompt
        behaviour = torch.full((STEP.completion,), -5.0)
        rows.append(TrainingRow(Key(0, 0, k, 0), ids, mask, behaviour, (-1.0) ** k, 1 / STEP.rollouts, 1.0, (0,)))
    role = module.role_module("main")
    return fastest(lambda: role.update(AlignedBatch("main", rows)), repeats=3)


def decoding_seconds(policy: Policy, rows: int) -> float:
    """Of one decoding step.

    Args:
        policy: Who samples.
        rows: In the batch.
    """
    prompt = torch.randint(3, 300, (STEP.prompt,), generator=torch.Generator().manual_seed(0)).tolist()

    def play(length: int) -> float:
        scheduler = Scheduler("rounds")
        conversations = TransformersSampler(policy, scheduler).open(prompt, (0,)).fork(rows)
        params = SamplingParams(max_new_tokens=length, stop_ids=())
        started = time.perf_counter()
        scheduler.play([conversation.sample(params, k) for k, conversation in enumerate(conversations)])
        return time.perf_counter() - started

    play(TURNS[0])
    short, long = TURNS
    return statistics.median((play(long) - play(short)) / (long - short) for _ in range(3))


def measure(size: str, base: str, rows: list[int]) -> list[dict[str, Any]]:
    """The table's lines of one model and base.

    Args:
        size: A key of ``SHAPES``.
        base: A key of ``BASES``.
        rows: Batch sizes of decoding.
    """
    shape = SHAPES[size]
    quantization, dtype = BASES[base]
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), shape)
        module = TeamModule(
            {"main": RoleConfig(base_model=folder, adapter=ADAPTER)},
            quantization=quantization,
            compute_dtype=dtype,
            token_budget=2048,
            dense_copy=base != "nf4",
        )
        module.configure_model()
    policy = module.policies["main"]
    width = policy.base.model.dtype.itemsize
    products, reading = product_speed(policy.base.model.dtype), reading_speed()
    found: list[dict[str, Any]] = [
        {"work": "update", "limit": update_operations(policy, shape) / products, "measured": update_seconds(module)}
    ]
    weights = linear_weights(policy)
    head = shape.vocab * shape.hidden
    for count in rows:
        stored = weights // 2 if base == "nf4" else weights * width
        cached = (
            count * (STEP.prompt + sum(TURNS) / 2) * bytes_per_token(policy.base.model.config, policy.base.model.dtype)
        )
        limit = max((stored + head * width + cached) / reading, 2 * (weights + head) * count / products)
        found.append({"work": f"decode {count}", "limit": limit, "measured": decoding_seconds(policy, count)})
    for line in found:
        line |= {"model": size, "base": base, "share": line["limit"] / line["measured"]}
        line |= {"gflops": products / 1e9, "gb_per_second": reading / 1e9}
    return found


def table(*results: Sequence[dict[str, Any]]) -> str:
    """Times beside their limits, in Markdown.

    Args:
        results: Of ``main``.
    """
    columns = ("model", "base", "work", "limit, ms", "measured, ms", "of the limit", "GFLOP/s", "GB/s")
    rows = [
        (
            *(f[name] for name in ("model", "base", "work")),
            *(f"{f[name] * 1e3:.1f}" for name in ("limit", "measured")),
            *(f"{f['share']:.2f}", f"{f['gflops']:.0f}", f"{f['gb_per_second']:.1f}"),
        )
        for result in results
        for f in result
    ]
    return markdown(columns, rows)


def main() -> None:
    """Measure every model and base and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), default=["22M", "135M"])
    parser.add_argument("--bases", nargs="+", choices=list(BASES), default=list(BASES))
    parser.add_argument("--rows", nargs="+", type=int, default=[8, 32], help="batch sizes for decoding")
    parser.add_argument("--threads", type=int, help="number of threads; default: number of cores")
    add_option(parser, NAME)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    figures = []
    for size in arguments.sizes:
        for base in arguments.bases:
            figures += measure(size, base, arguments.rows)
            print(f"{size} {base} measured", flush=True)
    print(table(figures))
    keep(arguments.record, figures, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
