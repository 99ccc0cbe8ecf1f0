"""RoleConfig: adapter, sampling, limits, optimizer of a role; find main; refuse circles of calls and bad discussions.

These dataclasses are the blocks under ``model.roles`` of a team file. Each field is one key there.
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
    """Rank r of the LoRA update B A."""
    alpha: Annotated[int, Range(1, 65536)] = 32
    """LoRA alpha: the update is multiplied by alpha / rank."""
    target_modules: list[str] = field(default_factory=lambda: list(LINEAR_LAYERS))
    """Names of the linear layers that get an adapter. The list is explicit, so that MoE routers and the LM head never
    get one."""
    dropout: Annotated[float, Range(0, 1, below=True)] = 0.0
    """LoRA dropout. Must be 0 for a trained role (correctness.md 12); it has no effect for a frozen role."""
    path: str | None = None
    """PEFT folder to start from; ``pocket`` names the warm-started adapters of the embedded model. None: a new adapter
    with B = 0."""
    shared_with: str | None = None
    """Name of another role. Both roles then play with, and train, that role's adapter. None: the role has its own
    adapter."""

    def __post_init__(self) -> None:
        if not self.target_modules:
            raise ConfigurationError(
                "adapter target_modules is empty.",
                hint=f"give names of linear layers, for instance {list(LINEAR_LAYERS)}.",
            )


@ranged("sampling")
@dataclass(frozen=True)
class SamplingConfig:
    """How a role samples. While training, only the temperature may differ from plain sampling (correctness.md 8)."""

    temperature: Temperature = 1.0
    """The logits are divided by it; 0 is greedy (validation only)."""
    top_p: Annotated[float, Range(0, 1, above=True)] = 1.0
    """Probability mass of nucleus sampling; must be 1 while training (correctness.md 8)."""
    top_k: Number = 0
    """Number of candidate tokens, 0 for all; must be 0 while training (correctness.md 8)."""


@ranged("limits")
@dataclass(frozen=True)
class LimitsConfig:
    """Budgets of one trajectory. When one runs out, the role gets one last turn in which only an answer is allowed."""

    turns: Count = 6
    """Sampled messages (turns) per trajectory, including the last one."""
    new_tokens: Count = 256
    """Sampled tokens per turn."""
    calls: Number = 8
    """Tool calls and delegations per trajectory."""
    context: Count = 4096
    """Tokens of the whole trajectory: the context window of the policy."""
    observation: Count = 1024
    """Tokens of a tool result or report that the policy sees. Longer text is cut at a line or sentence. The resume log
    and the journal keep more."""
    tool_seconds: Annotated[float, Range(0, math.inf, above=True)] = 300.0
    """Timeout of one tool call, in seconds. After it the policy sees an error and the rollout continues. It is the
    timeout of a call of a reward function too; after that the run ends. ``.inf``: no timeout."""


@ranged("optimizer")
@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and the learning-rate schedule of one role; the schedule counts this role's own updates.

    An update is one aligned batch, however many optimizer steps it takes.
    """

    lr: Annotated[float, Range(0, 10)] = 1e-5
    """Peak learning rate."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """AdamW betas."""
    weight_decay: Annotated[float, Range(0, 100)] = 0.0
    """Decoupled weight decay of the adapter."""
    clip_norm: Annotated[float, Range(0, math.inf, above=True)] = 1.0
    """Upper bound of the gradient norm of this role in each optimizer step."""
    updates_per_batch: Count = 1
    """mu: how often the role goes through each aligned batch."""
    minibatches: Count = 1
    """Optimizer steps in each pass through a batch: each takes a part of the step's rollouts, and keeps their
    coefficients. So the gradients of the minibatches sum to the gradient of the batch."""
    warmup: Number = 0
    """Number of updates of linear warm-up."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """Shape of the schedule after the warm-up, until the run's max_steps."""
    final: Share = 0.1
    """Learning rate at the end of the decay, as a share of the peak."""

    @property
    def steps_per_batch(self) -> int:
        """Optimizer steps for each aligned batch."""
        return self.updates_per_batch * self.minibatches


@ranged("role")
@dataclass(frozen=True)
class RoleConfig:
    """One seat in the team."""

    base_model: str
    """``pocket``, a hub name or a folder. Roles with the same base model share one copy in memory."""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """The role's LoRA adapter."""
    calls: list[str] = field(default_factory=list)
    """Roles it may delegate to."""
    discusses_with: list[str] = field(default_factory=list)
    """Roles that discuss the question with this one as equals: they take turns, each sees the messages of the others,
    and the first answer is the answer of all (``agents/discussion.py``)."""
    tools: list[str] = field(default_factory=list)
    """Tools it may use: names that the task offers, or dotted paths of typed Python functions."""
    system_prompt: str | None = None
    """System message. None: it is generated from the tools and roles that the role may call."""
    chat_template: str | None = None
    """None: the tokenizer's own template. ``chatml``: the package's prefix-preserving ChatML. ``chatml_no_think``: the
    same with an empty thought before each turn, for models that think by default, such as Qwen3-8B. Else the path of a
    Jinja file."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How the role samples while training."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """Budgets of one trajectory."""
    reward: RewardConfig | None = None
    """Weights of the reward components. None uses the paper's: ``{format: 0.1, correct: 0.9}`` for main and its equals
    (eq. 4), ``{format: 0.1, correct_main: 0.4, expert: 0.5}`` for all others (eq. 5)."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """The loss of the role's update."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """AdamW and learning-rate schedule of the role."""
    slots: Count | None = None
    """d of this role: the number of slots per rollout that its calls fill. None: ``data.alignment.slots``."""
    lag: Number = 0
    """Steps between rollout and update: step t trains on the rollouts of step t - lag, and the rollouts of the last
    ``lag`` steps are not trained on. The update then runs while the next rollouts wait for tools or other processes."""
    queue: Count | None = None
    """Trajectories per update, taken from a first-in first-out queue that mixes steps. None: an update trains on
    exactly the trajectories of one step."""
    endpoint: EndpointConfig | None = None
    """A model behind an OpenAI-compatible server plays the role. Such a role cannot be trained; of ``base_model`` only
    the tokenizer and the chat template are loaded."""
    trainable: bool = True
    """False freezes the role: it plays, but is not updated."""
    description: str = ""
    """What the callers' prompts say the role is good for."""

    @property
    def weights(self) -> RewardConfig:
        """The reward weights; only available after ``rewarded`` filled in the defaults."""
        assert self.reward is not None, "a team's roles have rewards"
        return self.reward

    def __post_init__(self) -> None:
        if self.endpoint is not None and self.trainable:
            raise ConfigurationError(
                f"the role played by {self.endpoint.model!r} at {self.endpoint.url} is trainable.",
                hint="set trainable: false.",
            )
        if self.queue is not None and self.lag:
            raise ConfigurationError(
                f"queue is {self.queue} and lag is {self.lag}.", hint="give one of them, and leave the other out."
            )


def longest_row(roles: Mapping[str, RoleConfig], base_model: str) -> int:
    """Return the length in tokens of the longest sequence that a base model computes.

    This is the largest ``limits.context`` of the roles on that base model.

    Args:
        base_model: As written in the team file; at least one role uses it.
    """
    return max(role.limits.context for role in roles.values() if role.base_model == base_model)


def rewarded(roles: Mapping[str, RoleConfig]) -> dict[str, RoleConfig]:
    """Return the team with the paper's reward weights in every role that has none.

    Raises:
        ConfigurationError: The roles do not form a team (see ``main_role``).
    """
    leading = leads(roles)
    return {
        name: replace(role, reward=role.reward or (MAIN_REWARD if name in leading else SUB_REWARD))
        for name, role in roles.items()
    }


def leads(roles: Mapping[str, RoleConfig]) -> list[str]:
    """Return main and its equals: the roles that are asked the question itself.

    Raises:
        ConfigurationError: The roles do not form a team (see ``main_role``).
    """
    main = main_role(roles)
    return [main, *roles[main].discusses_with]


def main_role(roles: Mapping[str, RoleConfig]) -> str:
    """Return the name of main: the one role that no other role calls. It gets the question and gives the answer.

    In a discussion, main is the role that lists the others in ``discusses_with``.

    Raises:
        ConfigurationError: A role's name is invalid, a called role does not exist, calls form a cycle, the number of
            roles that nobody calls is not 1, or roles of a discussion call or are called.
    """
    check_roles(roles)
    for name, role in roles.items():
        for key, others in (("calls", role.calls), ("discusses_with", role.discusses_with)):
            for other in others:
                if other not in roles:
                    raise ConfigurationError(
                        f"role {name!r} {key.replace('_', ' ')} {other!r}, which is not a role of this team.",
                        hint=f"use one of {sorted(roles)}, or add a block for {other!r}.",
                    )
    called = {callee for role in roles.values() for callee in role.calls}
    equals = {equal for role in roles.values() for equal in role.discusses_with}
    leads = [name for name in roles if name not in called | equals]
    if len(leads) != 1:
        raise ConfigurationError(
            f"{len(leads)} roles have no caller, but only main may have none: {leads}.",
            hint="list the other roles under `calls` or `discusses_with` of a role.",
        )
    # Start from every role: in a cycle that main does not reach, every role has a caller, so the check above misses it.
    for name in roles:
        _refuse_cycles(roles, name, ())
    _refuse_unequal(roles, leads[0])
    return leads[0]


def _refuse_unequal(roles: Mapping[str, RoleConfig], main: str) -> None:
    """Reject a discussion that main does not lead, and calls inside a discussion.

    The roles of a discussion share nothing but the transcript, so a sub-agent's report would reach only its caller.
    """
    members = [main, *roles[main].discusses_with]
    for name, role in roles.items():
        if name != main and role.discusses_with:
            raise ConfigurationError(
                f"role {name!r} discusses with {role.discusses_with}, but only main, here {main!r}, may.",
                hint=f"list all equals in the block of {main!r}.",
            )
    if len(members) > 1 and (called := [callee for name in members for callee in roles[name].calls]):
        raise ConfigurationError(
            f"{members} discuss as equals, but {called} are called.",
            hint="give tools to every equal, and leave `calls` out.",
        )
    if len(set(members)) < len(members):
        raise ConfigurationError(f"{members} discuss, but one of them is listed twice.", hint="list each equal once.")


def _refuse_cycles(roles: Mapping[str, RoleConfig], name: str, path: tuple[str, ...]) -> None:
    if name in path:
        raise ConfigurationError(
            f"roles call each other in a circle: {' -> '.join((*path, name))}.", hint="remove one of these `calls`."
        )
    for callee in roles[name].calls:
        _refuse_cycles(roles, callee, (*path, name))
