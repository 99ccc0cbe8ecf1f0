"""What a role is: base model, adapter, whom it may call, its tools, sampling, limits, reward weights and optimizer.

These dataclasses are the blocks under ``model.init_args.roles`` of a team file; every field is one key there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from mgrpo_lightning.algorithm.config import MAIN_REWARD, SUB_REWARD, ObjectiveConfig, RewardConfig
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.names import check_roles
from mgrpo_lightning.ranges import Count, Number, Range, Share, Temperature, ranged
from mgrpo_lightning.services.endpoint import EndpointConfig

Beta = Annotated[float, Range(0, 1, below=True)]
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@ranged("adapter")
@dataclass(frozen=True)
class AdapterConfig:
    """A role's LoRA adapter."""

    rank: Annotated[int, Range(1, 65536)] = 16
    """Rank r of the update B A."""
    alpha: Annotated[int, Range(1, 65536)] = 32
    """Scale numerator: the update is multiplied by alpha / rank."""
    target_modules: list[str] = field(default_factory=lambda: list(LINEAR_LAYERS))
    """Names of the linear layers that carry an adapter; an explicit list, so that routers and heads never do."""
    dropout: Annotated[float, Range(0, 1, below=True)] = 0.0
    """LoRA dropout of a frozen role's adapter, which has no effect; must be 0 in training (correctness.md 12)."""
    path: str | None = None
    """PEFT folder to start from; ``pocket`` names the embedded model's warm-started adapters. None: B = 0."""
    shared_with: str | None = None
    """Another role, whose adapter this one plays with and trains too: one model for both. None: its own."""

    def __post_init__(self) -> None:
        if not self.target_modules:
            raise ConfigurationError("adapter target_modules is empty.", hint=f"for instance {list(LINEAR_LAYERS)}.")


@ranged("sampling")
@dataclass(frozen=True)
class SamplingConfig:
    """How a role samples. While training, only the temperature may differ from plain sampling (correctness.md 8)."""

    temperature: Temperature = 1.0
    """Divides the logits; 0 is greedy (validation only)."""
    top_p: Annotated[float, Range(0, 1, above=True)] = 1.0
    """Nucleus mass; must be 1 while training."""
    top_k: Number = 0
    """Number of candidates, 0 for all; must be 0 while training."""


@ranged("limits")
@dataclass(frozen=True)
class LimitsConfig:
    """Budgets of one trajectory. When one runs out the role gets a last turn in which only an answer is legal."""

    turns: Count = 6
    """Sampled messages per trajectory, the last one included."""
    new_tokens: Count = 256
    """Sampled tokens per turn."""
    calls: Number = 8
    """Tool calls and delegations per trajectory."""
    context: Count = 4096
    """Tokens of the whole trajectory, the context window of the policy."""
    observation: Count = 1024
    """Tokens shown of a tool result or report; more is cut at a line or sentence. Memory and journal hold more."""
    tool_seconds: Annotated[float, Range(0, math.inf, above=True)] = 300.0
    """Seconds that a tool may take for one call; then the policy sees an error and play goes on. ``.inf``: no limit."""


@ranged("optimizer")
@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and the learning-rate schedule of one role; the schedule counts that role's own updates."""

    lr: Annotated[float, Range(0, 10)] = 1e-5
    """Peak learning rate."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """AdamW betas."""
    weight_decay: Annotated[float, Range(0, 100)] = 0.0
    """Decoupled weight decay of the adapter."""
    clip_norm: Annotated[float, Range(0, math.inf, above=True)] = 1.0
    """Gradient norm bound, per role."""
    warmup: Number = 0
    """Updates of linear warm-up."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after the warm-up, over the run's max_steps."""
    final: Share = 0.1
    """Share of the peak learning rate at the end of a decay."""


@ranged("role")
@dataclass(frozen=True)
class RoleConfig:
    """One seat in the team."""

    base_model: str
    """``pocket``, a hub name or a folder; roles that name the same base share one copy."""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """The role's adapter."""
    calls: list[str] = field(default_factory=list)
    """Roles it may delegate to."""
    discusses_with: list[str] = field(default_factory=list)
    """Roles that are asked the question together with this one, as its equals: they act in turn, each sees what the
    others did, and the first answer is that of all (``agents/discussion.py``)."""
    tools: list[str] = field(default_factory=list)
    """Tools it may use: names the task offers, or dotted paths of typed Python functions."""
    system_prompt: str | None = None
    """System message; None writes one from the tools and roles it may call."""
    chat_template: str | None = None
    """None: the tokenizer's own; ``chatml``: the package's prefix-preserving ChatML; ``chatml_no_think``: the same with
    an empty thought before each turn, for models that think unless they are told not to, such as Qwen3-8B; else a
    Jinja file."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Sampling while training."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """Budgets per trajectory."""
    reward: RewardConfig | None = None
    """Reward weights. None: the paper's: ``{format: 0.1, correct: 0.9}`` for main and its equals (eq. 4),
    ``{format: 0.1, correct_main: 0.4, expert: 0.5}`` for all others (eq. 5)."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What its update minimises."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How its adapter moves."""
    slots: Count | None = None
    """d of this role: how many slots its calls in a rollout fill; None: ``data.init_args.alignment.slots``."""
    lag: Number = 0
    """Steps between play and update: step t trains on what was played in step t - lag, and the last ``lag`` steps'
    play is not trained on. The update then fills what time the next play waits for tools or for other processes."""
    queue: Count | None = None
    """Trajectories of an update, taken from a free-running queue whichever steps they were played in; None: it trains
    on exactly what was played in one step."""
    endpoint: EndpointConfig | None = None
    """A model behind an OpenAI-compatible server plays the role, which then is not trainable; ``base_model`` is loaded
    for its tokenizer and chat template alone."""
    trainable: bool = True
    """False freezes the role: it plays, but takes no step."""
    description: str = ""
    """What callers are told the role is good for."""

    @property
    def weights(self) -> RewardConfig:
        """Its reward, which is that of its seat where the team file says none; see ``rewarded``."""
        assert self.reward is not None, "a team's roles have rewards"
        return self.reward

    def __post_init__(self) -> None:
        if self.endpoint is not None and self.trainable:
            raise ConfigurationError(
                f"the role of {self.endpoint.model!r} at {self.endpoint.url} is trainable.",
                hint="set trainable: false.",
            )
        if self.queue is not None and self.lag:
            raise ConfigurationError(
                f"queue is {self.queue} with lag {self.lag}.", hint="give one of them, and leave the other out."
            )


def longest_row(roles: Mapping[str, RoleConfig], base_model: str) -> int:
    """Tokens of the longest row that a base computes: the largest ``limits.context`` of the roles on it.

    Args:
        roles: The team.
        base_model: As the team file says it; at least one role has it.
    """
    return max(role.limits.context for role in roles.values() if role.base_model == base_model)


def rewarded(roles: Mapping[str, RoleConfig]) -> dict[str, RoleConfig]:
    """The team, with the paper's reward for each role that has none.

    Args:
        roles: A team.

    Raises:
        ConfigurationError: It is no team (see ``main_role``).
    """
    leading = heads(roles)
    return {
        name: replace(role, reward=role.reward or (MAIN_REWARD if name in leading else SUB_REWARD))
        for name, role in roles.items()
    }


def heads(roles: Mapping[str, RoleConfig]) -> list[str]:
    """Main and its equals: who gets the question itself.

    Args:
        roles: A team.

    Raises:
        ConfigurationError: It is no team (see ``main_role``).
    """
    main = main_role(roles)
    return [main, *roles[main].discusses_with]


def main_role(roles: Mapping[str, RoleConfig]) -> str:
    """The one role nobody calls: it gets the question and gives the answer. Of equals, the one that names the others.

    Raises:
        ConfigurationError: A role cannot have its name, a called role does not exist, a role can reach itself through
            calls, there is not exactly one role that nobody calls, or equals are called or call.
    """
    check_roles(roles)
    for name, role in roles.items():
        for key, others in (("calls", role.calls), ("discusses_with", role.discusses_with)):
            for other in others:
                if other not in roles:
                    raise ConfigurationError(
                        f"role {name!r} {key.replace('_', ' ')} {other!r}, which is no role of this team.",
                        hint=f"the roles are {sorted(roles)}; add a block for {other!r} or correct the name.",
                    )
    called = {callee for role in roles.values() for callee in role.calls}
    equals = {equal for role in roles.values() for equal in role.discusses_with}
    heads = [name for name in roles if name not in called | equals]
    if len(heads) != 1:
        raise ConfigurationError(
            f"{len(heads)} roles are called by nobody: {heads}.",
            hint="exactly one role (main) must stand at the top; give the others a caller in `calls`.",
        )
    _refuse_cycles(roles, heads[0], ())
    _refuse_unequal(roles, heads[0])
    return heads[0]


def _refuse_unequal(roles: Mapping[str, RoleConfig], main: str) -> None:
    """Refuse a discussion of anybody but main, and calls in it: its transcript is all that its agents share."""
    members = [main, *roles[main].discusses_with]
    for name, role in roles.items():
        if name != main and role.discusses_with:
            raise ConfigurationError(
                f"role {name!r} discusses with {role.discusses_with}; only main, here {main!r}, may.",
                hint=f"name all equals in the block of {main!r}.",
            )
    if len(members) > 1 and (called := [callee for name in members for callee in roles[name].calls]):
        raise ConfigurationError(
            f"{members} discuss as equals, and {called} are called.",
            hint="give every equal the tools themselves, and leave `calls` out.",
        )
    if len(set(members)) < len(members):
        raise ConfigurationError(f"{members} discuss, one of them twice.", hint="name each equal once.")


def _refuse_cycles(roles: Mapping[str, RoleConfig], name: str, path: tuple[str, ...]) -> None:
    if name in path:
        raise ConfigurationError(
            f"roles call each other in a circle: {' -> '.join((*path, name))}.", hint="remove one of these `calls`."
        )
    for callee in roles[name].calls:
        _refuse_cycles(roles, callee, (*path, name))
