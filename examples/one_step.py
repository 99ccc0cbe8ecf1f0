"""One step of M-GRPO, from two questions to two new adapters, on the package's pure functions and without Lightning.

    python examples/one_step.py

Read this file first, with docs/algorithm.md beside it. Each training step of ``mgrpo fit`` does the same. A planner
(main) and a searcher answer each question K times. Then each role takes one AdamW step on its own trajectories. The
model is the embedded one, the task the Factbook. A test compares the result with that of ``TeamModule``.

What changes no result is left out: micro-batches, and prefixes that several trajectories share and ``fit`` computes
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.agents.scoring import score_groups
from mgrpo_lightning.algorithm.advantages import group_advantages
from mgrpo_lightning.algorithm.alignment import AlignmentConfig, align
from mgrpo_lightning.algorithm.coefficients import coefficients
from mgrpo_lightning.algorithm.config import MAIN_REWARD, SUB_REWARD
from mgrpo_lightning.algorithm.objective import surrogate_loss
from mgrpo_lightning.algorithm.rewards import reward
from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.records.batch import TrainingRow
from mgrpo_lightning.records.trajectory import Group, Score, Trajectory
from mgrpo_lightning.roles.config import AdapterConfig, LimitsConfig, OptimizerConfig, RoleConfig, SamplingConfig
from mgrpo_lightning.tasks import Factbook, Question

SEED, STEP, K = 0, 0, 8
QUERIES = slice(2, 4)
"""Two training questions that this team answers right in some of its rollouts."""
ALIGNMENT = {"main": AlignmentConfig("duplicate_drop", slots=1), "searcher": AlignmentConfig("duplicate_drop", slots=8)}
"""d of each role. Main always has one slot, because a rollout has one main trajectory."""

_role = partial(
    RoleConfig,
    base_model="pocket",
    adapter=AdapterConfig(rank=16, alpha=32, path="pocket"),  # warm-started on imperfect demonstrations
    limits=LimitsConfig(turns=5, new_tokens=64, calls=4, context=512, observation=128),
    sampling=SamplingConfig(temperature=0.7),
    optimizer=OptimizerConfig(lr=2.5e-4),
)
ROLES = {
    "main": _role(calls=["searcher"], system_prompt="main", reward=MAIN_REWARD),
    "searcher": _role(tools=["search", "visit"], system_prompt="searcher", reward=SUB_REWARD),
}


@dataclass
class Member:
    """One trajectory of a role, with what the step computes for it."""

    trajectory: Trajectory
    reward: float
    multiplicity: float = 0.0
    advantage: float = 0.0
    coefficient: float = 0.0


@dataclass
class RoleStep:
    """The step of one role. The policy has the new adapter, and still its gradient."""

    policy: Policy
    members: list[Member]
    loss: float
    """Before the step. It is 0 up to rounding: every ratio is 1, and the advantages of a query add up to 0."""
    loss_after: float
    """With the new adapter, on the same trajectories; negative if the step went the right way."""
    norm: float
    """Gradient norm before clipping."""
    change: float
    """L2 norm of the change of the adapter's weights."""


def play(policies: dict[str, Policy], task: Factbook, questions: Sequence[Question]) -> list[Group]:
    """Play K rollouts of each question; the trajectories hold the sampled ids and their log-probabilities."""
    scheduler = Scheduler("rounds")
    chats = {name: policy.chat for name, policy in policies.items()}
    samplers = {name: TransformersSampler(policy, scheduler) for name, policy in policies.items()}
    team = Players(ROLES, chats, samplers, task.tools(), scheduler=scheduler, seed=SEED)
    groups = team.play(PlayRequest(questions, step=STEP, rollouts=K)).groups
    score_groups(groups, task, ROLES)  # format, correct, correct_main and expert of each trajectory
    return groups


def assign_credit(groups: Sequence[Group], role: str) -> list[Member]:
    """Compute reward, multiplicity, advantage and coefficient of each trajectory of a role."""
    queries = [query_members(group, role) for group in groups]
    # Sums of eq. 14 and 17: every query of the step counts alike, and so does every filled slot of a query.
    shares = coefficients([[member.multiplicity for member in members] for members in queries])
    members = list(chain(*queries))
    for member, share in zip(members, chain(*shares), strict=True):
        member.coefficient = share
    return members


def query_members(group: Group, role: str) -> list[Member]:
    """The role's trajectories of one query, with their rewards, multiplicities and advantages."""
    calls = [
        [Member(t, total_reward(t, rollout.scores[t.key.invocation])) for t in rollout.trajectories(role)]
        for rollout in group.rollouts
    ]
    members = list(chain(*calls))
    # Section 4.1: rollout k made d_k calls, and they fill d slots.
    seed = stream_of(SEED, "align", STEP, group.rollouts[0].main.key.query)
    multiplicity = list(chain(*align([len(row) for row in calls], ALIGNMENT[role], seed).multiplicity))
    # Eq. 9 to 13: relative to the mean and std over all filled slots of this query.
    rewards = torch.tensor([member.reward for member in members], dtype=torch.float64)
    advantages = group_advantages(rewards, torch.tensor(multiplicity), std_floor=1e-6)
    for member, slots, advantage in zip(members, multiplicity, advantages.values.tolist(), strict=True):
        member.multiplicity, member.advantage = slots, advantage
    return members


def total_reward(trajectory: Trajectory, score: Score) -> float:
    """Eq. 4 for main, eq. 5 for the searcher."""
    assert not score.failed, "a failed score leaves its group; the rules of the Factbook decide every score"
    weights, valid = ROLES[trajectory.role].weights, trajectory.valid
    return reward(weights, valid=valid, correct=score.correct, correct_main=score.correct_main, expert=score.expert)


def loss_of(policy: Policy, members: Sequence[Member]) -> Tensor:
    """Eq. 14 to 19 on the N sampled tokens of B rows of up to T tokens: the trajectories that fill a slot."""
    trained = [member for member in members if member.multiplicity]
    rows = [
        row for m in trained for row in TrainingRow.of(m.trajectory, advantage=m.advantage, coefficient=m.coefficient)
    ]
    ids = pad_sequence([row.ids for row in rows], batch_first=True)  # (B, T)
    mask = pad_sequence([row.mask for row in rows], batch_first=True)  # (B, T), True on sampled tokens
    lengths = torch.tensor([len(row.ids) for row in rows])  # (B,)
    weights = torch.tensor([row.coefficient for row in rows], dtype=torch.float64)  # (B,)
    return surrogate_loss(
        action_logprobs(policy, ids, lengths, mask, temperature=policy.config.sampling.temperature),  # (N,)
        torch.cat([row.behaviour for row in rows]),  # (N,)
        mask.nonzero()[:, 0],  # (N,): the row of each token
        torch.tensor([row.advantage for row in rows], dtype=torch.float64),  # (B,)
        weights,
        config=policy.config.objective,
        batch_tokens=float((weights * mask.sum(1)).sum()),
    ).loss


def update(policy: Policy, members: list[Member]) -> RoleStep:
    """One AdamW step of one role's adapter."""
    config, parameters = policy.config.optimizer, list(policy.named_parameters().values())
    before = policy.adapter_state()
    loss = loss_of(policy, members)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    torch.optim.AdamW(parameters, config.lr, config.betas, weight_decay=config.weight_decay).step()
    with torch.no_grad():
        after = loss_of(policy, members)
    moved = [(new - before[name]).square().sum() for name, new in policy.adapter_state().items()]
    return RoleStep(policy, members, float(loss.detach()), float(after), float(norm), float(sum(moved)) ** 0.5)


def step() -> tuple[list[Group], dict[str, RoleStep]]:
    """Load, play, score, align, normalise and update."""
    base = load_base("pocket", quantization="nf4", compute_dtype=torch.float32, context=512)
    policies = {name: Policy(name, config, base, seed=SEED) for name, config in ROLES.items()}
    task = Factbook(hops=(2,))
    groups = play(policies, task, task.questions("train")[QUERIES])
    # All roles train on the same rollouts, each on its own trajectories. No gradient crosses from one to another.
    return groups, {name: update(policy, assign_credit(groups, name)) for name, policy in policies.items()}


def table(groups: Sequence[Group], roles: dict[str, RoleStep]) -> str:
    """The questions, and a line for each trajectory."""
    lines = [f"query {number}: {group.question.text}" for number, group in enumerate(groups)]
    for name, done in roles.items():
        figures = f"loss {done.loss:.0e}, after the step {done.loss_after:.5f}, gradient norm {done.norm:.4f}"
        figures += f", adapter moved by {done.change:.4f}"
        lines += ["", f"{name}: {figures}", "query rollout call  tokens  reward  slots  advantage  coefficient"]
        for m in done.members:
            place = f"{m.trajectory.key.query:5} {m.trajectory.key.rollout:7} {m.trajectory.key.invocation:4}"
            weight = f"{m.multiplicity:5g} {m.advantage:10.3f} {m.coefficient:12.4f}"
            lines.append(f"{place} {m.trajectory.num_actions:7} {m.reward:7.2f} {weight}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(*step()))
