"""Refuse Trainer keys that do not work for a team (epochs, precision, clipping, ...); name what to use instead.

In a team run, a step is one batch, an epoch is the whole run, and each role has its own gradient clipping. For every
other key, ``tests/modules/test_trainer_keys.py`` names the test that shows that it works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy

from mgrpo_lightning.distributed.strategy import NAME, TeamStrategy
from mgrpo_lightning.errors import ConfigurationError


@dataclass(frozen=True)
class Rule:
    """The allowed values of a trainer key."""

    holds: Callable[[Any], bool]
    hint: str


def _only(*values: object) -> Callable[[Any], bool]:
    # Compare types too: a limit of 1 is one batch, a limit of 1.0 is all batches.
    return lambda value: any(value is one or (type(value) is type(one) and value == one) for one in values)


RULES: Mapping[str, Rule] = {
    "accelerator": Rule(
        lambda value: not isinstance(value, str) or value in ("auto", "cpu", "gpu", "cuda"), "give cpu, gpu or auto."
    ),
    "strategy": Rule(
        lambda value: (
            isinstance(value, TeamStrategy | SingleDeviceStrategy) or value in ("auto", "single_device", NAME)
        ),
        "leave it out: with several trainer.devices it is mgrpo.",
    ),
    "precision": Rule(
        _only(None, 32, "32", "32-true"),
        "leave it out, and set model.compute_dtype to float32 or bfloat16: trainer.precision would change "
        "updates but not sampling.",
    ),
    "fast_dev_run": Rule(
        _only(False, 0), "use --dry_run, or two small steps: --config pkg:debug/fast.yaml after the team file."
    ),
    "max_epochs": Rule(_only(None, -1), "set trainer.max_steps: one epoch is the whole run."),
    "min_epochs": Rule(_only(None, 0), "leave it out: one epoch is the whole run."),
    "min_steps": Rule(_only(None), "leave it out: to stop later, give EarlyStopping more patience."),
    "limit_train_batches": Rule(_only(None, 1.0), "set trainer.max_steps: a batch is a step."),
    "overfit_batches": Rule(_only(None, 0, 0.0), "use a task with few questions, such as JsonlTask with a short file."),
    "val_check_interval": Rule(
        lambda value: value is None or isinstance(value, int | float), "give steps, as in val_check_interval: 50."
    ),
    "check_val_every_n_epoch": Rule(
        _only(None, 1), "set trainer.val_check_interval to steps: one epoch is the whole run."
    ),
    "enable_checkpointing": Rule(_only(None, True), "set checkpoint.every_n_train_steps or checkpoint.save_top_k."),
    "accumulate_grad_batches": Rule(
        _only(1),
        "set data.queries_per_step: a step is one update; model.token_budget bounds memory.",
    ),
    "gradient_clip_val": Rule(_only(None), "set optimizer.clip_norm of each role."),
    "gradient_clip_algorithm": Rule(_only(None), "set optimizer.clip_norm of each role: it bounds the norm."),
    "barebones": Rule(_only(False), "leave it out: a run without checkpoints and metrics cannot be resumed or read."),
    "sync_batchnorm": Rule(_only(False), "leave it out: the bases are frozen."),
    "reload_dataloaders_every_n_epochs": Rule(_only(0), "leave it out: one epoch is the whole run."),
    "model_registry": Rule(_only(None), "leave it out, and publish the folder `adapters` of the run."),
}
"""Rules by key; keys without a rule are left to Lightning."""


def refuse_keys(values: Mapping[str, Any]) -> None:
    """Reject values of trainer keys with which a team would not train, or not as its team file says.

    Args:
        values: Trainer arguments by key; missing keys are not checked.

    Raises:
        ConfigurationError: A value is not allowed.
    """
    for key, rule in RULES.items():
        if key in values and not rule.holds(value := values[key]):
            raise ConfigurationError(f"trainer.{key} is {value!r}, which a team cannot use.", hint=rule.hint)


def refuse_trainer(trainer: Trainer) -> None:
    """Reject a trainer that was constructed with such values.

    Raises:
        ConfigurationError: A value is not allowed, or an EarlyStopping callback would only look after the last step.
    """
    made = {key: getattr(trainer, key) for key in RULES if hasattr(trainer, key)}
    del made["accelerator"]  # the trainer holds an accelerator object, which depends on the machine
    refuse_keys(made)
    interval = trainer.val_check_interval
    if isinstance(interval, int) and trainer.check_val_every_n_epoch is not None and interval > trainer.max_steps > 0:
        raise ConfigurationError(
            f"trainer.val_check_interval is {interval} in a run of {trainer.max_steps} steps.",
            hint="set it to at most trainer.max_steps, or set trainer.limit_val_batches: 0 for no validation.",
        )
    if not trainer.early_stopping_callbacks:
        return
    if (isinstance(interval, float) and interval == 1) or not trainer.limit_val_batches:
        raise ConfigurationError(
            f"EarlyStopping needs a validation before the end of the run: trainer.val_check_interval is "
            f"{interval}, trainer.limit_val_batches is {trainer.limit_val_batches}.",
            hint="set trainer.val_check_interval to steps, as in val_check_interval: 10.",
        )
    for stopper in trainer.early_stopping_callbacks:
        # Lightning reads an interval of 1 step like 1.0, all steps. Early stopping would then run at the end of the run
        # only.
        stopper._check_on_train_epoch_end = False


def refuse_nothing_asked(trainer: Trainer, command: str | None) -> None:
    """Reject a validation or test that would ask no question.

    Raises:
        ConfigurationError: The limit of batches is 0.
    """
    limit = "limit_val_batches" if command == "validate" else "limit_test_batches"
    if getattr(trainer, limit) == 0:
        raise ConfigurationError(
            f"trainer.{limit} is 0: no question would be asked.", hint=f"leave it out, or give --trainer.{limit}=1.0."
        )
