"""``mgrpo fit --dry_run``: what a run would be, checked and shown before a weight is loaded.

Every tokenizer is loaded and every chat template and tool checked; then come the trainable parameters, the tokens of a
step and the memory plan.
"""

from __future__ import annotations

from dataclasses import fields

from rich.console import Console
from rich.table import Column, Table

from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.loading import load_config, load_tokenizer
from mgrpo_lightning.policy.memory import MemoryPlan, adapter_parameters, meta_model, plan
from mgrpo_lightning.policy.policy import refuse_biased_training
from mgrpo_lightning.policy.supported import refuse_unsupported
from mgrpo_lightning.tools.base import wanted_tools


def dry_run(
    model: TeamModule, data: AlignedTrajectoryDataModule, *, on_gpu: bool, console: Console | None = None
) -> MemoryPlan:
    """Check a run's settings and print what it needs.

    Args:
        model: The root module, before its bases are loaded.
        data: The data module.
        on_gpu: Whether the run computes there, whatever this machine has.
        console: Where to print; None is the terminal.

    Raises:
        ConfigurationError: A model, tokenizer, chat template, tool or setting cannot be used.
    """
    console = console or Console()
    for name, config in model.roles.items():
        refuse_biased_training(name, config)
        Chat(load_tokenizer(config.base_model), config.chat_template)
        if config.endpoint is None:
            refuse_unsupported(load_config(config.base_model), config.base_model, context=config.limits.context)
    wanted_tools(model.roles, data.task.tools())
    memory = planned(model, data, on_gpu=on_gpu)
    console.print(_roles_table(model, data.queries_per_step * data.rollouts_per_query))
    console.print(_memory_table(memory))
    return memory


def planned(model: TeamModule, data: AlignedTrajectoryDataModule, *, on_gpu: bool) -> MemoryPlan:
    """The memory plan of a run.

    Args:
        model: The root module.
        data: The data module.
        on_gpu: Whether it computes there.

    Raises:
        ConfigurationError: There is no such base.
    """
    rollouts = data.queries_per_step * data.rollouts_per_query
    return plan(
        {name: role for name, role in model.roles.items() if role.endpoint is None},
        quantization=model.quantization,
        compute_dtype=model.compute_dtype,
        dense_copy=model.dense_copy,
        token_budget=model.token_budget,
        gradient_checkpointing=model.gradient_checkpointing,
        conversations=dict.fromkeys(model.roles, max(rollouts, data.validation.per_batch * data.validation.repeats)),
        on_gpu=on_gpu,
        cache_bytes=data.cache_bytes,
    )


def _roles_table(model: TeamModule, rollouts: int) -> Table:
    """Trainable parameters, and the tokens of a step at most: every conversation at its full context."""
    figures = ("trainable parameters", "conversations a step", "tokens a step, at most")
    table = Table("role", "base", *(Column(name, justify="right") for name in figures))
    for name, config in model.roles.items():
        owner = config.adapter.shared_with
        trainable = adapter_parameters(meta_model(config.base_model), config.adapter) if config.trainable else 0
        callers = [caller for caller in model.roles.values() if name in caller.calls]
        calls = sum(caller.limits.calls for caller in callers) if callers else 1
        count = rollouts * calls
        table.add_row(
            name,
            config.base_model,
            f"those of {owner}" if owner else f"{trainable:,}",
            f"{count:,}" if not callers else f"up to {count:,}",
            f"{count * config.limits.context:,}",
        )
    return table


def _memory_table(memory: MemoryPlan) -> Table:
    """Bytes by purpose, one call at a time in each rollout."""
    table = Table("memory", Column("MiB", justify="right"))
    for field in fields(memory):
        table.add_row(field.name.replace("_", " "), f"{getattr(memory, field.name) / 2**20:,.1f}")
    table.add_section()
    table.add_row("total", f"{memory.total / 2**20:,.1f}")
    return table
