"""``mgrpo replay RUN``: recompute updates from the journal; compare adapters with the checkpoint or other settings.

Nothing is sampled again: groups, scores and behaviour log-probabilities come from the journal. Alignment, advantages,
gradients and the optimizer's step are computed as in training. Under the ``eager`` schedule, sampling again would give
other rollouts, so a replay is the only way to reproduce an update.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor
from typing_extensions import override

from mgrpo_lightning.commands.saved_run import cli_of, saved_config
from mgrpo_lightning.data.command_context import CommandContext
from mgrpo_lightning.errors import DataError
from mgrpo_lightning.persistence.checkpoints import checkpoints
from mgrpo_lightning.policy.identity import PARTS, refuse_other
from mgrpo_lightning.records.journal import identity_of_file, training_files

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule

Adapters = Mapping[str, Mapping[str, Tensor]]
"""Adapter parameters by role and parameter name."""
_OF_THE_TRAINER = ("accelerator", "precision", "max_steps", "deterministic", "detect_anomaly")


@dataclass(frozen=True)
class Replayed:
    """The adapters after a replay, and the metrics of the last update."""

    adapters: Adapters
    metrics: Mapping[str, float]
    """Named as in training: ``main/loss``, ``main/grad_norm``, ..."""


class _Until(Callback):
    """Stops training at a training step, and checks before each step that the same models played its rollouts.

    Args:
        step: Number of training steps of the run after which to stop.
        journal: Folder of the run's journal.
    """

    def __init__(self, step: int, journal: Path) -> None:
        self.step = step
        self.files = training_files(journal)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        module = cast("TeamModule", pl_module)
        ours = {name: policy.identity for name, policy in module.policies.items()}
        for path in self.files[batch.step]:
            refuse_other(identity_of_file(path), ours, source=str(path), accepted=module.accept_changes)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        trainer.should_stop = int(pl_module.num_steps) >= self.step  # type: ignore[arg-type]


def replay(
    run: Path, *, start: Path | None, until: int, settings: Sequence[str] = (), save: Path | None = None
) -> Replayed:
    """Recompute a run's updates up to a step.

    Args:
        run: Folder of the run, with config.yaml and the journal.
        start: Checkpoint to start from; None starts at step 0.
        until: Number of training steps of the run after which to stop.
        settings: Changed settings, as options of ``mgrpo fit``.
        save: Path of a checkpoint to write at the end; None writes none.

    Raises:
        ConfigurationError: The folder is not a run, or a setting cannot be used.
        DataError: The journal lacks a step.
    """
    config = saved_config(run)
    cli = cli_of(run, settings)
    journal = _journal(run, config)
    cli.datamodule.command = CommandContext(replayed=journal)
    if settings:  # a changed setting may change the model's identity; here the user wants that
        cli.model.accept_changes = PARTS
    trainer = Trainer(
        # Only keys that change the computation. A replay must not log, save or validate.
        **{name: config["trainer"][name] for name in _OF_THE_TRAINER},
        max_epochs=-1,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[_Until(until, journal)],
    )
    trainer.fit(cli.model, cli.datamodule, ckpt_path=start, weights_only=True)
    if save is not None:
        trainer.save_checkpoint(save)
    return Replayed({role: policy.adapter_state() for role, policy in cli.model.adapters.items()}, cli.model.metrics)


def _journal(run: Path, config: Mapping[str, Any]) -> Path:
    return Path(config["rollout_log"]["dirpath"] or run / "journal")


def kept(run: Path) -> dict[int, Path]:
    """Return the checkpoints that a run has kept, by their number of training steps.

    Args:
        run: Folder of the run.
    """
    return checkpoints(run / "checkpoints")


def differences(ours: Adapters, theirs: Adapters) -> dict[str, float]:
    """Return the largest absolute difference of each role's parameters; 0 means bitwise equal.

    Args:
        ours: Adapters of a team.
        theirs: Adapters of the same team in another state.
    """
    return {
        # torch's max propagates NaN; Python's would hide it, and NaN would look like 0
        role: float(torch.stack([(state[n] - theirs[role][n].to(state[n])).abs().max() for n in state]).max())
        for role, state in ours.items()
    }


def main(args: Sequence[str]) -> None:
    """Run ``mgrpo replay``.

    Args:
        args: Command line after ``mgrpo replay``.

    Raises:
        SystemExit: With 1 if the recomputed adapters differ from the run's checkpoint.
    """
    parser = argparse.ArgumentParser("mgrpo replay")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument(
        "--step", type=int, help="recompute the update of this step only, counted from 0; default: all updates"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="recompute the step with this setting and compare",
    )
    arguments = parser.parse_args(args)
    logging.getLogger("lightning").setLevel(logging.WARNING)  # at INFO each replay reports that there is no GPU
    console = Console()
    if arguments.step is None:
        if arguments.set:
            parser.error("--set needs --step")
        until = max(training_files(_journal(arguments.run, saved_config(arguments.run))), default=-1) + 1
        if until == 0:
            raise DataError(
                f"the journal of {arguments.run} is empty.", hint="give a run that has finished at least one step."
            )
        with console.status(f"recomputing {until} updates ..."):
            replayed = replay(arguments.run, start=None, until=until)
        _compare(console, arguments.run, until, replayed)
        return
    with tempfile.TemporaryDirectory() as folder, console.status(f"recomputing step {arguments.step} ..."):
        before = Path(folder) / "before.ckpt"
        earlier = {step: path for step, path in kept(arguments.run).items() if step <= arguments.step}
        start = earlier[max(earlier)] if earlier else None
        # If no checkpoint stands exactly at the step, compute the updates up to it once, and start from there.
        if max(earlier, default=0) < arguments.step:
            replay(arguments.run, start=start, until=arguments.step, save=before)
            start = before
        recorded = replay(arguments.run, start=start, until=arguments.step + 1)
        if arguments.set:
            settings = [f"--{setting}" for setting in arguments.set]
            changed = replay(arguments.run, start=start, until=arguments.step + 1, settings=settings)
            console.print(_table(recorded, changed))
        else:
            console.print(_table(recorded))
    _compare(console, arguments.run, arguments.step + 1, recorded)


def _compare(console: Console, run: Path, until: int, replayed: Replayed) -> None:
    path = kept(run).get(until)
    if path is None:
        console.print(
            f"Nothing is compared: the run kept no checkpoint of step {until} (checkpoint.save_top_k: -1 keeps all)."
        )
        return
    state = torch.load(path, map_location="cpu", weights_only=True)
    found = differences(replayed.adapters, {role: values["adapter"] for role, values in state["roles"].items()})
    for role, difference in found.items():
        verdict = "bitwise equal to" if difference == 0 else f"differs by up to {difference:.3g} from"
        console.print(f"{role}: {verdict} {path}", soft_wrap=True)
    if any(found.values()):
        raise SystemExit(1)


def _table(recorded: Replayed, changed: Replayed | None = None) -> Table:
    """Table of the metrics of the recorded update and, if given, of the changed one beside it."""
    heads = ["recorded", *(["changed"] if changed else [])]
    table = Table("metric", *(Column(head, justify="right") for head in heads))
    for name, value in recorded.metrics.items():
        if name.rpartition("/")[0] in recorded.adapters:
            table.add_row(name, f"{value:.6g}", *([f"{changed.metrics[name]:.6g}"] if changed else []))
    if changed:
        for role, difference in differences(changed.adapters, recorded.adapters).items():
            table.add_row(f"{role}/adapter, largest change", "", f"{difference:.3g}")
    return table
