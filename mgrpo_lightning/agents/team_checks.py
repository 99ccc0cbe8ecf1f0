"""Check a team before weights are loaded: limits against prompt and positions of a base, tools, lag, reward weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transformers import PreTrainedConfig

from mgrpo_lightning.agents.players import make_seats
from mgrpo_lightning.agents.reward_functions import load_functions
from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.loading import load_config, load_tokenizer
from mgrpo_lightning.policy.supported import refuse_unsupported
from mgrpo_lightning.protocol.actions import HermesDialect
from mgrpo_lightning.roles.config import RoleConfig, leads
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tools.base import wanted_tools

PLACE = "model.roles"
"""Path of the roles in a team file, for error messages."""


def check_team(roles: Mapping[str, RoleConfig], names: Iterable[str], task: Task, *, steps: int) -> dict[str, Seat]:
    """Check limits, names of tools, lags, reward weights and reward functions of a team.

    Args:
        roles: Configuration of every role of the team, by name.
        names: Names of the roles to check: those that this process plays.
        task: The task of the run, with its tools and its expert.
        steps: Training steps of the run; 0 or less if it does not train.

    Returns:
        The seats of the checked roles, by name.

    Raises:
        ConfigurationError: A tool, tokenizer, template or base model cannot be used; a prompt, the notice and one turn
            do not fit into the context; the context exceeds the model's positions; a lag is as long as the run; a
            reward weighs a component that is always 0; or a reward function cannot be used.
    """
    chats = {name: Chat(load_tokenizer(roles[name].base_model), roles[name].chat_template) for name in names}
    seats = make_seats(roles, chats, wanted_tools(roles, task.tools()), HermesDialect())
    for name, seat in seats.items():
        _refuse_short_context(seat)
        load_functions(f"{PLACE}.{name}.reward", seat.config)
        if steps > 0:
            _refuse_impossible_reward(seat, task, lead=name in leads(roles))
        if seat.config.endpoint is None:
            config = load_config(seat.config.base_model)
            refuse_unsupported(config, seat.config.base_model, context=seat.config.limits.context)
            _refuse_long_context(name, seat.config, config)
        if 0 < steps <= seat.config.lag:
            raise ConfigurationError(
                f"{PLACE}.{name}.lag is {seat.config.lag} in a run of {steps} steps: it would never update.",
                hint="set lag below trainer.max_steps.",
            )
    return seats


def prompt_tokens(seat: Seat) -> int:
    """Length of a role's prompt in tokens, without its task."""
    return len(seat.chat.open(seat.system, ""))


def full_calls(seat: Seat) -> int:
    """Number of calls that fit into a role's context if every turn and every result has its maximum length."""
    limits = seat.config.limits
    room = limits.context - prompt_tokens(seat) - seat.notice_tokens - limits.new_tokens
    around = seat.notice_tokens  # upper bound on the template's tokens around one result
    fit = max(room, 0) // (limits.new_tokens + limits.observation + around)
    # The last turn is the answer, so at most turns - 1 turns can call.
    return min(fit, limits.calls, limits.turns - 1) if seat.offers else 0


def positions(config: PreTrainedConfig) -> int | None:
    """Maximum context length of a model in tokens, with the RoPE scaling of its config; None if it gives no number.

    Args:
        config: The model's config; of a multimodal model, its text config is read.
    """
    config = config.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int):
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    # Some models have one block of RoPE parameters for each layer type.
    blocks = [rope, *(one for one in rope.values() if isinstance(one, dict))]
    for block in blocks:
        # Linear scaling extends max_position_embeddings itself; other types name the length before scaling.
        original = block.get("original_max_position_embeddings") or (most if block.get("rope_type") == "linear" else 0)
        most = max(most, int(original * (block.get("factor") or 1)))
    return most


def _refuse_short_context(seat: Seat) -> None:
    limits, place = seat.config.limits, f"{PLACE}.{seat.role}.limits"
    prompt, notice = prompt_tokens(seat), seat.notice_tokens if seat.offers else 0
    needed = prompt + notice + limits.new_tokens
    # Equality is refused too: the task needs at least one token.
    if needed >= limits.context:
        raise ConfigurationError(
            f"{place}.context is {limits.context}, too short for a prompt of {prompt} tokens without its task, a "
            f"notice of {notice} and a turn of {limits.new_tokens}.",
            hint=f"set it above {needed} plus room for the task, or shorten system_prompt or new_tokens.",
        )
    if seat.offers and limits.observation > limits.context:
        raise ConfigurationError(
            f"{place}.observation is {limits.observation}, but context is {limits.context}.",
            hint="lower observation so that it fits into the context.",
        )


def _refuse_impossible_reward(seat: Seat, task: Task, *, lead: bool) -> None:
    """Refuse a weight on a component that is always 0 for this role, and a reward without any weight."""
    role, place = seat.config, f"{PLACE}.{seat.role}.reward"
    if not role.trainable or role.objective.kind != "mgrpo":
        return
    weights = role.weights
    for component, never, why, hint in (
        ("correct", not lead, "only main and its equals answer the question", "set correct_main instead"),
        ("correct_main", lead, "the role answers the question itself", "set correct instead"),
        ("expert", not task.has_expert, "the task has no expert", "set it to 0, or give the task an expert or a judge"),
    ):
        if never and (weight := getattr(weights, component)):
            raise ConfigurationError(
                f"{place}.{component} is {weight}, but it can never be earned: {why}.", hint=f"{hint}."
            )
    if not weights.parts:
        raise ConfigurationError(f"{place} has no weight above 0.", hint="leave it out to use the paper's weights.")


def _refuse_long_context(name: str, role: RoleConfig, config: PreTrainedConfig) -> None:
    most = positions(config)
    if most is not None and role.limits.context > most:
        raise ConfigurationError(
            f"{PLACE}.{name}.limits.context is {role.limits.context}, but {role.base_model!r} has {most} positions.",
            hint=f"set it to at most {most}, or use a base_model whose config.json scales its positions.",
        )
