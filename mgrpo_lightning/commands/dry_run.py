"""``mgrpo fit --dry_run``: check a run without weights; print prompt lengths, calls that fit, tokens, memory plan.

It loads every tokenizer and adapter folder and checks chat templates, tools and limits. Then it prints each role's
prompt length, the number of calls that fit after the prompt, the trainable parameters, the tokens of a step, and the
memory plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import torch
from rich.console import Console
from rich.table import Column, Table

from mgrpo_lightning.agents.conversation_checks import conversations_of
from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.agents.team_checks import check_team, full_calls, prompt_tokens
from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
from mgrpo_lightning.data.selection import training_questions
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.policy.adapters import AdapterBank
from mgrpo_lightning.policy.loading import load_config
from mgrpo_lightning.policy.memory import MemoryPlan, adapter_parameters, meta_model, plan
from mgrpo_lightning.policy.peft_folder import read_peft_folder
from mgrpo_lightning.policy.policy import refuse_biased_training
from mgrpo_lightning.policy.supported import refuse_unsupported


def dry_run(
    model: TeamModule,
    data: AlignedTrajectoryDataModule,
    *,
    on_gpu: bool,
    steps: int = 0,
    console: Console | None = None,
) -> MemoryPlan:
    """Check a run's settings and print what it needs.

    Args:
        model: The root module, before its bases are loaded.
        on_gpu: Whether the run will use a GPU; this machine needs none.
        steps: Training steps of the run; 0 skips the checks that need it.
        console: Where to print; None prints to the terminal.

    Raises:
        ConfigurationError: A model, tokenizer, chat template, tool or setting cannot be used.
        DataError: Recorded conversations do not fit the team or its questions.
    """
    console = console or Console()
    for name, config in model.roles.items():
        refuse_biased_training(name, config)
        if config.endpoint is None:
            refuse_unsupported(load_config(config.base_model), config.base_model, context=config.limits.context)
            with torch.device("meta"):  # shapes without memory: this checks that the adapter's target modules exist
                bank = AdapterBank(meta_model(config.base_model), config.base_model)
                bank.add(name, config.adapter, trainable=config.trainable)
        if config.adapter.path is not None and config.adapter.shared_with is None:
            read_peft_folder(config.adapter, role=name)
    seats = check_team(model.roles, model.roles, data.task, steps=steps)
    if data.demonstrations is not None:
        conversations = conversations_of(data.demonstrations, model.main, model.roles, seats)
        conversations.among(training_questions(data.task, data.selection))
    if steps > 0:
        data.refuse_minibatches(model)
    memory = planned(model, data, on_gpu=on_gpu)
    console.print(_prompts_table(seats))
    console.print(_roles_table(model, data.queries_per_step * data.rollouts_per_query))
    console.print(_memory_table(memory))
    return memory


def planned(model: TeamModule, data: AlignedTrajectoryDataModule, *, on_gpu: bool) -> MemoryPlan:
    """Compute the memory plan of a run.

    Args:
        model: The root module; its bases need not be loaded.
        data: The data module, for the number of conversations and the cache size.
        on_gpu: Whether the run will use a GPU.

    Raises:
        ConfigurationError: A base does not exist.
    """
    rollouts = data.queries_per_step * data.rollouts_per_query
    return plan(
        # The model of a role behind an endpoint needs memory on its server, not here.
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


def _prompts_table(seats: Mapping[str, Seat]) -> Table:
    """Table of each role's context size, prompt length, and number of full-length calls that fit."""
    columns = ("context", "prompt", "full-length calls that fit")
    table = Table("role", *(Column(name, justify="right") for name in columns))
    for name, seat in seats.items():
        calls = f"{full_calls(seat):,} of {seat.config.limits.calls:,}" if seat.offers else "-"
        table.add_row(name, f"{seat.config.limits.context:,}", f"{prompt_tokens(seat):,}", calls)
    return table


def _roles_table(model: TeamModule, rollouts: int) -> Table:
    """Table of trainable parameters and of a step's tokens, an upper bound: every conversation fills its context."""
    columns = ("trainable parameters", "conversations per step", "tokens per step, at most")
    table = Table("role", "base", *(Column(name, justify="right") for name in columns))
    for name, config in model.roles.items():
        owner = config.adapter.shared_with
        trainable = adapter_parameters(meta_model(config.base_model), config.adapter) if config.trainable else 0
        callers = [caller for caller in model.roles.values() if name in caller.calls]
        # A sub-agent plays one conversation for each call of each of its callers; main plays one for each rollout.
        calls = sum(caller.limits.calls for caller in callers) if callers else 1
        count = rollouts * calls
        table.add_row(
            name,
            config.base_model,
            f"shared with {owner}" if owner else f"{trainable:,}",
            f"{count:,}" if not callers else f"up to {count:,}",
            f"{count * config.limits.context:,}",
        )
    return table


def _memory_table(memory: MemoryPlan) -> Table:
    """Table of the memory plan by purpose, in MiB; it assumes one call at a time in each rollout."""
    table = Table("memory", Column("MiB", justify="right"))
    for field in fields(memory):
        table.add_row(field.name.replace("_", " "), f"{getattr(memory, field.name) / 2**20:,.1f}")
    table.add_section()
    table.add_row("total", f"{memory.total / 2**20:,.1f}")
    return table
