"""``mgrpo doctor``: check this machine: file system, memory, gradients after sampling, sampler against trainer.

Each check prints one line with its result, and a fix if it fails. The model checks use the real base with each role's
own adapter and sampler.
"""

from __future__ import annotations

import logging
import os
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import psutil
import torch
from rich.console import Console
from torch import Tensor

from mgrpo_lightning.commands.dry_run import planned
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.commands.options import split
from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.modules.mismatch import LARGEST_MEAN
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.persistence.atomic import atomic_path
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.quantised import unquantised
from mgrpo_lightning.policy.sampling.base import SampledTurn, SamplingParams
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler

LARGEST_GRADIENT_CHANGE = 1e-3
"""Largest relative change of a gradient. Not 0, because sums on a GPU have no fixed order. The bug that
``gradient_line`` looks for changes the gradient by about 1."""
TURNS, TOKENS = 8, 24
QUESTION = ["Which", "is", "the", "longest", "river?"]


@dataclass(frozen=True)
class Line:
    """The outcome of one check."""

    name: str
    good: bool
    found: str
    fix: str = ""


def examine(model: TeamModule, data: AlignedTrajectoryDataModule, root: Path, device: torch.device) -> Iterator[Line]:
    """Run all checks and yield their lines one by one.

    Args:
        model: The root module, before its bases are loaded.
        data: The data module; its sizes enter the memory plan.
        root: Folder that holds all runs.
        device: Device that will hold the models.
    """
    yield _guarded("run folder", lambda: folder_line(root))
    yield _guarded("memory", lambda: memory_line(planned(model, data, on_gpu=device.type == "cuda").total, device))
    try:
        with device:  # Lightning also builds modules in the device context
            model.to(device).configure_model()
    except MgrpoError as error:
        yield Line("bases", False, str(error))
        return
    # No test here: configure_model has raised if a chat template changes earlier tokens when a turn is added.
    for policy in model.policies.values():
        yield Line(f"{policy.role}: chat template", True, "a new turn keeps every earlier token")
    trained = [model.policies[name] for name in model.trained_roles]
    for policy in {policy.base.name: policy for policy in trained}.values():
        if model.quantization == "nf4":
            yield share_line(policy)
        yield gradient_line(policy)
    for policy in model.policies.values():
        yield mismatch_line(policy)
        yield context_line(policy)


def _guarded(name: str, check: Callable[[], Line]) -> Line:
    try:
        return check()
    except (MgrpoError, OSError) as error:
        return Line(name, False, str(error))


def folder_line(root: Path) -> Line:
    """Check that the filesystem supports what checkpoints need: atomic rename, exclusive create and fsync.

    Args:
        root: Folder that holds all runs; created if missing.

    Raises:
        OSError: The folder cannot be written to.
    """
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        path = Path(folder) / "file"
        for text in ("old", "new"):
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        renames = path.read_text(encoding="utf-8") == "new"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            exclusive = False
        except FileExistsError:
            exclusive = True
    good = renames and exclusive
    found = f"{root} has atomic rename, exclusive create, fsync" if good else f"{root} lacks atomic rename or create"
    return Line("run folder", good, found, "" if good else "set run.root to a local disk or another shared filesystem.")


def memory_line(needed: int, device: torch.device) -> Line:
    """Check that the memory plan fits into the free memory.

    Args:
        needed: Bytes of the memory plan.
        device: Device whose free memory is read.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    good = needed <= free
    fix = "set gradient_checkpointing, or lower token_budget, cache_gib or limits.context; see `mgrpo fit --dry_run`."
    return Line(
        "memory",
        good,
        f"{needed / 2**30:.2f} GiB planned, {free / 2**30:.1f} GiB free on {device}",
        "" if good else fix,
    )


def share_line(policy: Policy) -> Line:
    """Report how much of the base is quantised to 4 bits.

    Args:
        policy: Any policy on the base.
    """
    share, _ = unquantised(policy.base.model)  # always good: loading has refused a base with too large a share
    return Line(f"{policy.base.name}: 4 bit", True, f"{1 - share:.1%} of the inner weights' bytes are 4-bit")


def gradient_line(policy: Policy) -> Line:
    """Check that sampling (a pass without gradients) does not change later gradients (correctness.md 31).

    Args:
        policy: Any policy on the base.
    """
    before = _gradient(policy)
    _sample(policy)
    after = _gradient(policy)
    change = float((after - before).norm() / before.norm().clamp(min=1e-30))
    good = change <= LARGEST_GRADIENT_CHANGE
    found = f"sampling changes later gradients by {change:.1g} of their norm"
    fix = "set quantization: none, and report a bug: a library repacks the base's weights while it samples."
    return Line(f"{policy.base.name}: gradients", good, found, "" if good else fix)


def mismatch_line(policy: Policy) -> Line:
    """Check that sampler and trainer compute the same log-probabilities for sampled tokens (correctness.md 7)."""
    rows, turns = _sample(policy)
    gap = _gap(policy, rows, turns)
    bound = _bound(policy)
    good = float(gap.mean()) <= bound
    found = f"abs log rho: mean {float(gap.mean()):.1g} (bound {bound:g}), largest {float(gap.max()):.1g}"
    fix = "set dense_copy: false, or compute_dtype: float32."
    return Line(f"{policy.role}: sampler against trainer", good, found, "" if good else fix)


def context_line(policy: Policy) -> Line:
    """Run the check of ``mismatch_line`` on a row that ends at ``limits.context`` and a short row (correctness.md 37).

    Both rows are sampled in one batch and scored separately: the length of one row must not change the other's numbers.
    """
    context = policy.config.limits.context
    (short, long), (first, last) = _play(policy, [_prompt(policy), _long_prompt(policy, context - TOKENS)])
    gaps = {"a short sequence": _gap(policy, [short], [first]), "the long one": _gap(policy, [long], [last])}
    bound = _bound(policy)
    good = all(float(gap.mean()) <= bound for gap in gaps.values())
    means = " and ".join(f"{float(gap.mean()):.1g} for {which}" for which, gap in gaps.items())
    found = f"in a batch with a sequence of {len(long)} tokens, mean abs log rho is {means} (bound {bound:g})"
    fix = "lower limits.context until this check passes, or use another base."
    return Line(f"{policy.role}: sampler against trainer at limits.context", good, found, "" if good else fix)


def _bound(policy: Policy) -> float:
    return LARGEST_MEAN.get(policy.base.model.dtype, LARGEST_MEAN[torch.float32])


def _gap(policy: Policy, rows: Sequence[list[int]], turns: Sequence[SampledTurn]) -> Tensor:
    """Abs log rho of the sampled tokens, flat, float64. Each row ends with its sampled tokens; one pass scores all."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=policy.device)
    lengths = torch.tensor([len(row) for row in rows], device=policy.device)
    starts = lengths - torch.tensor([len(turn.ids) for turn in turns], device=policy.device)
    places = torch.arange(width, device=policy.device)
    mask = (places >= starts[:, None]) & (places < lengths[:, None])
    with torch.no_grad():
        fresh = action_logprobs(policy, ids, lengths, mask, temperature=_temperature(policy)).double().cpu()
    return (fresh - torch.tensor([value for turn in turns for value in turn.logprobs], dtype=torch.float64)).abs()


def _sample(policy: Policy) -> tuple[list[list[int]], list[SampledTurn]]:
    """Sample ``TURNS`` turns of one short prompt; return whole rows (prompt and turn) and the turns."""
    return _play(policy, [_prompt(policy)], forks=TURNS)


def _play(policy: Policy, prompts: Sequence[list[int]], *, forks: int = 1) -> tuple[list[list[int]], list[SampledTurn]]:
    scheduler = Scheduler("rounds")
    sampler = TransformersSampler(policy, scheduler)
    params = SamplingParams(TOKENS, policy.chat.stop_ids, _temperature(policy))
    conversations = [fork for i, prompt in enumerate(prompts) for fork in sampler.open(prompt, (i,)).fork(forks)]
    turns = scheduler.play([conversation.sample(params, i) for i, conversation in enumerate(conversations)])
    rows = [[*prompts[i // forks], *turn.ids] for i, turn in enumerate(turns)]
    return rows, list(turns)


def _prompt(policy: Policy, words: int = len(QUESTION)) -> list[int]:
    text = " ".join(islice(cycle(QUESTION), words))
    return policy.chat.open(policy.config.system_prompt or "system", text)


def _long_prompt(policy: Policy, tokens: int) -> list[int]:
    """Make a prompt that repeats the question, as long as possible within a number of tokens."""
    too_many = bisect_right(range(tokens), tokens, key=lambda words: len(_prompt(policy, words)))
    return _prompt(policy, max(too_many - 1, 1))


def _temperature(policy: Policy) -> float:
    return policy.config.sampling.temperature or 1.0  # 0 is greedy: there is no distribution to compare, so use 1


def _gradient(policy: Policy) -> Tensor:
    """Gradient of the log-likelihood of 64 fixed token ids, for all trainable parameters, flat."""
    ids = torch.arange(1, 65, device=policy.device)[None] % policy.base.model.config.get_text_config().vocab_size
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, 0] = False  # nothing predicts the first token
    parameters = [p for p in policy.named_parameters().values() if p.requires_grad]
    logprobs = action_logprobs(policy, ids, torch.tensor([64], device=policy.device), mask, temperature=1.0)
    return torch.cat([g.flatten() for g in torch.autograd.grad(logprobs.sum(), parameters)])


def main(args: Sequence[str]) -> None:
    """Run ``mgrpo doctor``.

    Args:
        args: Command line after ``mgrpo doctor``: a team file and changes, as for ``mgrpo fit``.

    Raises:
        SystemExit: With 1 if a check fails.
    """
    logging.getLogger("lightning").setLevel(logging.WARNING)  # at INFO it reports twice that there is no GPU
    words = list(args) if split(args)[0] else ["--config", "pkg:quickstart.yaml", *args]
    cli = make_cli(words, run=False)
    console = Console()
    bad = 0
    root = Path(cli.trainer.default_root_dir).parent
    for line in examine(cli.model, cli.datamodule, root, cli.trainer.strategy.root_device):
        bad += not line.good
        head = "[green]ok [/]" if line.good else "[red]bad[/]"
        console.print(f"{head} {line.name}: {line.found}" + (f" HINT: {line.fix}" if line.fix else ""), soft_wrap=True)
    if bad:
        raise SystemExit(1)
