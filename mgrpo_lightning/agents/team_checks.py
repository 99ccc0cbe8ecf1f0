"""Check the parts of a team file against each other, the models and the task, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transformers import PreTrainedConfig

from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.agents.team import make_seats
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.loading import load_config, load_tokenizer
from mgrpo_lightning.policy.supported import refuse_unsupported
from mgrpo_lightning.protocol.actions import HermesDialect
from mgrpo_lightning.roles.config import RoleConfig, heads
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tools.base import wanted_tools

PLACE = "model.init_args.roles"
"""Where roles stand in a team file."""


def check_team(roles: Mapping[str, RoleConfig], names: Iterable[str], task: Task, *, steps: int) -> dict[str, Seat]:
    """Check limits, names of tools, lags and reward weights of a team.

    Args:
        roles: The team.
        names: Roles that are looked at: those that this process plays.
        task: What it plays.
        steps: Optimizer steps of the run; 0 or less where it has none.

    Returns:
        The seats of these roles.

    Raises:
        ConfigurationError: A tool, tokenizer, template or base cannot be used; a prompt, the notice and one turn do not
            fit into a context; a context is beyond a model's positions; a lag is as long as the run; or a reward
            weighs what is always 0.
    """
    chats = {name: Chat(load_tokenizer(roles[name].base_model), roles[name].chat_template) for name in names}
    seats = make_seats(roles, chats, wanted_tools(roles, task.tools()), HermesDialect())
    for name, seat in seats.items():
        _refuse_short_context(seat)
        if steps > 0:
            _refuse_impossible_reward(seat, task, head=name in heads(roles))
        if seat.config.endpoint is None:
            config = load_config(seat.config.base_model)
            refuse_unsupported(config, seat.config.base_model, context=seat.config.limits.context)
            _refuse_long_context(name, seat.config, config)
        if 0 < steps <= seat.config.lag:
            raise ConfigurationError(
                f"{PLACE}.{name}.lag is {seat.config.lag} in a run of {steps} steps: no update would come.",
                hint="give a lag below trainer.max_steps.",
            )
    return seats


def prompt_tokens(seat: Seat) -> int:
    """Length of a role's prompt without its task.

    Args:
        seat: Of the role.
    """
    return len(seat.chat.open(seat.system, ""))


def full_calls(seat: Seat) -> int:
    """How many calls fit into a role's context if every turn and every result is as long as it may be.

    Args:
        seat: Of the role.
    """
    limits = seat.config.limits
    room = limits.context - prompt_tokens(seat) - seat.notice_tokens - limits.new_tokens
    around = seat.notice_tokens  # what the template writes around a result is no longer than that and the notice
    fit = max(room, 0) // (limits.new_tokens + limits.observation + around)
    return min(fit, limits.calls, limits.turns - 1) if seat.offers else 0


def positions(config: PreTrainedConfig) -> int | None:
    """How many positions a model can tell apart, scaled as its config says; None if it names no number.

    Args:
        config: Of the model.
    """
    config = config.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int):
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    blocks = [rope, *(one for one in rope.values() if isinstance(one, dict))]  # some have a block a kind of layer
    for block in blocks:
        original = block.get("original_max_position_embeddings") or (most if block.get("rope_type") == "linear" else 0)
        most = max(most, int(original * (block.get("factor") or 1)))
    return most


def _refuse_short_context(seat: Seat) -> None:
    limits, place = seat.config.limits, f"{PLACE}.{seat.role}.limits"
    prompt, notice = prompt_tokens(seat), seat.notice_tokens if seat.offers else 0
    needed = prompt + notice + limits.new_tokens
    if needed >= limits.context:
        raise ConfigurationError(
            f"{place}.context is {limits.context}: a prompt of {prompt} tokens without its task, a notice of {notice} "
            f"and a turn of {limits.new_tokens} do not fit.",
            hint=f"give more than {needed}, and room for the task, or a shorter system_prompt or new_tokens.",
        )
    if seat.offers and limits.observation > limits.context:
        raise ConfigurationError(
            f"{place}.observation is {limits.observation}, and context {limits.context}.",
            hint="give an observation that fits into the context.",
        )


def _refuse_impossible_reward(seat: Seat, task: Task, *, head: bool) -> None:
    """Refuse weights of what is always 0 in this seat, and a reward that is 0 whatever is done."""
    role, place = seat.config, f"{PLACE}.{seat.role}.reward"
    if not role.trainable or role.objective.kind != "mgrpo":
        return
    weights = role.weights
    for component, never, why, hint in (
        ("correct", not head, "only main and its equals answer the question", "weigh correct_main instead"),
        ("correct_main", head, "the role answers the question itself", "weigh correct instead"),
        ("expert", not task.has_expert, "the task has no expert", "set it to 0, or give the task an expert or a judge"),
    ):
        if never and (weight := getattr(weights, component)):
            raise ConfigurationError(
                f"{place}.{component} is {weight}, and would never be earned: {why}.", hint=f"{hint}."
            )
    if not any((weights.format, weights.correct, weights.correct_main, weights.expert)):
        raise ConfigurationError(f"{place} weighs nothing.", hint="leave it out: the paper's weights stand for it.")


def _refuse_long_context(name: str, role: RoleConfig, config: PreTrainedConfig) -> None:
    most = positions(config)
    if most is not None and role.limits.context > most:
        raise ConfigurationError(
            f"{PLACE}.{name}.limits.context is {role.limits.context}, and {role.base_model!r} has {most} positions.",
            hint=f"give at most {most}, or a base_model whose config.json scales them.",
        )
