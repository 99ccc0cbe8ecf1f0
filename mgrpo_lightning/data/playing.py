"""Playing: make scheduler, samplers, team and exchange; play and score a request; end if no answer is decided."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Trainer

from mgrpo_lightning.agents.play import PlayRequest, PlayResult, Stage
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.agents.scoring import score_groups, undecided
from mgrpo_lightning.data.outcomes import take_outcomes, tell_outcomes
from mgrpo_lightning.data.resuming import saved_steps
from mgrpo_lightning.data.store_connection import PeersConfig, open_exchange
from mgrpo_lightning.errors import ScoringError
from mgrpo_lightning.modules.play_metrics import play_counts
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tools.base import wanted_tools

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule
    from mgrpo_lightning.store.exchange import Exchange

log = logging.getLogger(__name__)


def make_players(
    module: TeamModule,
    task: Task,
    schedule: Literal["rounds", "eager"],
    *,
    cache_bytes: int | None,
    seed: int,
    exchange: Exchange | None = None,
) -> Players:
    """The players of all roles that this process plays, on the policies of a module.

    Args:
        module: The root module, its policies loaded.
        task: Tools of the roles.
        schedule: Order in which the agents' turns run; see ``Scheduler``.
        cache_bytes: Limit of the KV cache of one role's open conversations, in bytes; None: no limit.
        seed: Fixes the random streams.
        exchange: This process's end of the store, if other processes play some roles.

    Raises:
        ConfigurationError: A role's tool does not exist.
    """
    scheduler = Scheduler(schedule)
    samplers = {
        name: TransformersSampler(policy, scheduler, cache_bytes=cache_bytes)
        for name, policy in module.policies.items()
    }
    tools = wanted_tools(module.roles, task.tools())
    return Players(module.roles, module.chats, samplers, tools, scheduler=scheduler, seed=seed, exchange=exchange)


NOTHING_DECIDED = 4
"""Number of undecided answers in a row that ends the run; at least one whole batch. Then there is nothing to train on
or to report."""


class Playing:
    """The players of one process, with its end of the store if other processes play other roles.

    Args:
        trainer: Trainer with the root module attached and its policies loaded.
        task: Questions, tools and scoring.
        schedule: Order in which the agents' turns run; see ``Scheduler``.
        cache_bytes: Limit of the KV cache of one role's open conversations, in bytes; None: no limit.
        store: Folder of the store; None: every role is played here.
        peers: What happens when another role's process is gone.
        seed: Fixes the random streams.
        shared: Settings that must agree between the processes of all roles; None: not compared.

    Raises:
        ConfigurationError: A role's tool does not exist, or this team cannot be played in separate processes.
        MgrpoError: The store cannot be written.
    """

    def __init__(
        self,
        trainer: Trainer,
        task: Task,
        *,
        schedule: Literal["rounds", "eager"],
        cache_bytes: int | None,
        store: Path | None,
        peers: PeersConfig,
        seed: int,
        shared: Mapping[str, Any] | None = None,
    ) -> None:
        module: TeamModule = trainer.lightning_module  # type: ignore[assignment]
        self._undecided = 0
        """Number of answers since the last one that could be decided."""
        self._trainer = trainer
        self._module = module
        self._task = task
        self.exchange = None if store is None else open_exchange(store, trainer, peers, shared)
        """This process's end of the store; None if all roles are local."""
        self._told_wrong = False
        self._players = make_players(module, task, schedule, cache_bytes=cache_bytes, seed=seed, exchange=self.exchange)

    def play(self, request: PlayRequest) -> PlayResult:
        """Play questions and score their rollouts; predictions are not scored.

        A training step is closed in the store when it is scored.

        Args:
            request: The questions, and how they are played.

        Raises:
            ScoringError: The last ``NOTHING_DECIDED`` answers could not be decided.
        """
        stage, step = request.stage, request.step
        self._notify("on_play_start", total=len(request.questions) * request.rollouts, stage=stage)
        result = self._players.play(request, on_done=lambda: self._notify("on_play_advance"))
        if stage != "predict":
            self._score(result, stage)
        if request.script is not None and self._module.main in self._module.local_roles:
            wrong = self._wrong_demonstrations(result.groups)
            result = replace(result, counts={**result.counts, "wrong_demonstrations": wrong})
        if stage == "train":
            counts = play_counts(result.groups, self._module.local_roles, sampled=request.script is None)
            result = replace(result, counts={**result.counts, **counts})
        self._notify("on_play_end", groups=result.groups, stage=stage, step=step)
        if self.exchange is not None and stage == "train":
            self.exchange.close_step(step, saved=saved_steps(self._trainer))
        return result

    def close(self, error: BaseException | None = None) -> None:
        """Tell the other roles that this process ends.

        Args:
            error: The error that ends it; None: it is done.
        """
        if self.exchange is not None:
            self.exchange.close(error)

    def _score(self, result: PlayResult, stage: Stage) -> None:
        module, exchange, groups = self._module, self.exchange, result.groups
        if exchange is None:
            self._refuse_nothing_decided(groups, score_groups(groups, self._task, module.roles))
        elif module.main in module.local_roles:
            why = score_groups(groups, self._task, module.roles)
            # Before the outcomes are published: if scoring is broken, no other role may train on them.
            self._refuse_nothing_decided(groups, why)
            tell_outcomes(exchange, groups, result.delegations, stage=stage)
        else:
            # Main's correctness is a component of a sub-agent's reward, so it is needed before scoring.
            take_outcomes(exchange, groups, result.delegations, main=module.main, stage=stage)
            score_groups(groups, self._task, module.roles)

    def _refuse_nothing_decided(self, groups: Sequence[Group], why: str) -> None:
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        self._undecided = self._undecided + len(rollouts) if all(map(undecided, rollouts)) else 0
        if self._undecided >= NOTHING_DECIDED:
            why = why or "no turn was played for them; see the log."
            raise ScoringError(
                f"none of the last {self._undecided} answers could be decided: {why}",
                hint="correct the service that fails, then resume; finished turns are kept.",
            )

    def _wrong_demonstrations(self, groups: Sequence[Group]) -> int:
        """Count demonstrations that are not scored as correct, and warn about the first: the team learns them too."""
        wrong = [
            (group.question, rollout)
            for group in groups
            for rollout in group.rollouts
            if group.question.known and not undecided(rollout) and rollout.scores[0].correct < 1
        ]
        if wrong and not self._told_wrong:
            self._told_wrong = True
            question, rollout = wrong[0]
            answers = "" if question.encrypted else f" answers {rollout.main.answer!r}, which"
            log.warning(
                "a demonstration of question %r%s is scored %g, and the team still learns from it. "
                "Such demonstrations are counted as wrong_demonstrations.",
                *(question.id, answers, rollout.scores[0].correct),
            )
        return len(wrong)

    def _notify(self, hook: str, **arguments: Any) -> None:
        for callback in self._trainer.callbacks:  # type: ignore[attr-defined]
            if callable(method := getattr(callback, hook, None)):
                method(**arguments)
