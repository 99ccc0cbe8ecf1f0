"""TrainedTeam: load a finished run once; play and score questions with the adapters of any kept checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.agents.scoring import score_groups
from mgrpo_lightning.commands.replay import kept
from mgrpo_lightning.commands.saved_run import cli_of
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.policy.sampling.base import Sampler
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tools.base import wanted_tools

Adapters = Mapping[str, Mapping[str, Tensor]]
"""By role and parameter name."""


class TrainedTeam:
    """Players.

    Args:
        run: Folder of the run: its config and its checkpoints.
    """

    def __init__(self, run: Path) -> None:
        cli = cli_of(run, ["--trainer.accelerator=cpu", "--trainer.logger=false"])
        cli.model.configure_model()
        self.module: TeamModule = cli.model
        self.task: Task = cli.datamodule.task
        self.data = cli.datamodule
        self.steps: dict[int, Adapters] = {0: {n: p.adapter_state() for n, p in self.module.adapters.items()}}
        """Adapters by the number of optimizer steps before; 0 is what the run began with."""
        for step, path in sorted(kept(run).items()):
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.steps[step] = {role: values["adapter"] for role, values in state["roles"].items()}
        self.scheduler = Scheduler("rounds")
        self.samplers: dict[str, Sampler] = {
            name: TransformersSampler(policy, self.scheduler) for name, policy in self.module.policies.items()
        }

    def take(self, adapters: Adapters) -> None:
        """Play with other adapters from now on.

        Args:
            adapters: Of any roles; the others keep theirs.
        """
        for role, state in adapters.items():
            self.module.policies[role].load_adapter_state(state)

    def play(
        self,
        questions: Sequence[Question],
        *,
        rollouts: int = 1,
        seed: int = 0,
        temperature: float | None = None,
        samplers: Mapping[str, Sampler] | None = None,
    ) -> list[Group]:
        """Play and score.

        Args:
            questions: What main is asked.
            rollouts: Of each question.
            seed: Of the random streams.
            temperature: Overrides the roles' own; 0 is greedy.
            samplers: In the place of the team's own.
        """
        roles, tools = self.module.roles, wanted_tools(self.module.roles, self.task.tools())
        own = samplers or self.samplers
        team = Players(roles, self.module.chats, own, tools, scheduler=self.scheduler, seed=seed)
        groups = team.play(PlayRequest(questions, step=0, rollouts=rollouts, temperature=temperature)).groups
        score_groups(groups, self.task, roles)
        return groups
