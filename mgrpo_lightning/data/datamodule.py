"""AlignedTrajectoryDataModule: the ``data`` block; dataloaders of fit, validation, test, predict; the resumed step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from mgrpo_lightning.agents.conversation_checks import conversations_of
from mgrpo_lightning.agents.play import PlayRequest, PlayResult
from mgrpo_lightning.agents.team_checks import check_team
from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.data.command_context import CommandContext
from mgrpo_lightning.data.dataloaders import HeldOutBatches, TrainBatches, part_of
from mgrpo_lightning.data.group_sources import GroupSource, PlayedGroups, RecordedGroups
from mgrpo_lightning.data.playing import Playing
from mgrpo_lightning.data.question_order import QuestionOrder
from mgrpo_lightning.data.recorded import played_before
from mgrpo_lightning.data.resuming import ResumeLogs
from mgrpo_lightning.data.selection import SelectionConfig, training_questions
from mgrpo_lightning.data.step_batches import StepBatches
from mgrpo_lightning.data.store_connection import PeersConfig
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.modules.validation_config import ValidationConfig
from mgrpo_lightning.persistence.resume_log import ResumeLog
from mgrpo_lightning.ranges import Count, Range, Seed, ranged
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.roles.minibatches import refuse_empty_minibatches
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tasks.conversations import Conversations

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule


CacheSize = Annotated[float, Range(0, 2**20, above=True)]


@ranged("data")
class AlignedTrajectoryDataModule(LightningDataModule):
    """Yield one ``TeamBatch`` per training step, played with the current adapters.

    Args:
        task: Questions, tools and scoring.
        queries_per_step: Queries per training step.
        rollouts_per_query: K, the number of rollouts in a group.
        alignment: How sub-agent calls fill the K x d slots of a query; a role may set its own d (``slots``).
        schedule: ``rounds`` is bitwise reproducible; ``eager`` batches ready turns and keeps a resume log.
        source: ``policy`` plays the team; ``demonstrations`` plays the task's scripts (warm start).
        demonstrations: File of recorded conversations, which are played instead of the task's scripts. Training
            questions without one are not used. None: the task's scripts.
        validation: How held-out questions are evaluated.
        selection: Which training questions are used; None: all.
        cache_gib: Limit of one role's KV cache, in GiB. A small one costs waiting and recomputation. None: no limit.
        store: Folder of the store that connects processes of different roles; None: this process plays all roles.
        peers: What happens when another role's process is gone.
        journal: Folder of the run's journal. A role with a lag or a queue reads it after a restart.
        seed: Fixes the order of questions, sampling and alignment.

    Raises:
        ConfigurationError: A number is out of its range, a group has one rollout with the mgrpo objective, or
            ``demonstrations`` are given that ``source`` does not play.
    """

    def __init__(
        self,
        task: Task,
        queries_per_step: Count = 8,
        rollouts_per_query: Count = 8,
        alignment: AlignmentConfig = AlignmentConfig(),  # noqa: B008 - frozen, and --help shows its fields
        schedule: Literal["rounds", "eager"] = "eager",
        source: Literal["policy", "demonstrations"] = "policy",
        demonstrations: str | None = None,
        validation: ValidationConfig = ValidationConfig(),  # noqa: B008 - as above
        selection: SelectionConfig | None = None,
        cache_gib: CacheSize | None = None,
        store: str | None = None,
        peers: PeersConfig = PeersConfig(),  # noqa: B008 - as above
        journal: str | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.task = task
        self.queries_per_step = queries_per_step
        self.rollouts_per_query = rollouts_per_query
        self.alignment = alignment
        self.schedule: Literal["rounds", "eager"] = schedule
        self.source = source
        self.demonstrations = None if demonstrations is None else Path(demonstrations)
        if demonstrations is not None and source == "policy":
            raise ConfigurationError(
                f"data.demonstrations is {demonstrations!r}, but data.source is 'policy', which does not play them.",
                hint="set data.source to demonstrations, or leave data.demonstrations out.",
            )
        self.validation = validation
        self.selection = selection
        self.cache_bytes = None if cache_gib is None else int(cache_gib * 2**30)
        self.store = None if store is None else Path(store)
        self.peers = peers
        self.journal = None if journal is None else Path(journal)
        self.seed = seed
        self.command = CommandContext()
        """Set by a command before the trainer runs."""
        self._conversations: Conversations | None = None
        self._playing: Playing | None = None
        self._first_step = 0  # steps done: a resumed run starts there

    @property
    def module(self) -> TeamModule:
        """The root module of the attached trainer."""
        assert self.trainer is not None
        return self.trainer.lightning_module  # type: ignore[return-value]

    @property
    def resume_logs(self) -> ResumeLogs:
        """The resume logs of the attached trainer's command."""
        assert self.trainer is not None
        return ResumeLogs(self.trainer, self.schedule, self.seed, self.module.policies, self.command.settings)

    @override
    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        steps = self.trainer.max_steps if stage == "fit" else 0
        module = self.module
        seats = check_team(module.roles, module.local_roles, self.task, steps=steps)
        if stage == "fit" and self.command.replayed is None and self.demonstrations is not None:
            self._conversations = conversations_of(self.demonstrations, module.main, module.roles, seats)

    @override
    def train_dataloader(self) -> TrainBatches:
        assert self.trainer is not None
        self._refuse_empty_steps(self.trainer)
        questions = training_questions(self.task, self.selection)
        if self._conversations is not None:
            count, questions = len(questions), self._conversations.among(questions)
            rank_zero_info(f"{len(questions)} of {count} training questions have a recorded conversation.")
        part, journal = self._part(self.queries_per_step), self.command.replayed or self.journal
        batches = StepBatches(
            self.module,
            self._source(questions, part),
            lambda step: played_before(journal, step, self.module.roles, part),
            alignment=self.alignment,
            agreement=self.task.agreement,
            seed=self.seed,
        )
        return TrainBatches(batches.batch, self._first_step, self.trainer.max_steps)

    @override
    def val_dataloader(self) -> HeldOutBatches:
        return self._held_out(self.validation)

    @override
    def test_dataloader(self) -> HeldOutBatches:
        return self._held_out(replace(self.validation, split="test"))

    @override
    def predict_dataloader(self) -> HeldOutBatches:
        return self._held_out_batches(self.command.questions, self.validation, "there is no question to answer.")

    @override
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # only the rows of the current micro-batch move to the device; a whole step would not fit

    @override
    def teardown(self, stage: str) -> None:
        if stage == "fit":
            assert self.trainer is not None
            self.resume_logs.remove_closed()
        if self._playing is not None:
            self._playing.close()
        self._playing, self._first_step = None, 0  # a notebook's next command has another trainer

    @override
    def on_exception(self, exception: BaseException) -> None:
        if self._playing is not None:
            self._playing.close(exception)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"step": self.module.num_steps, "seed": self.seed, "queries_per_step": self.queries_per_step}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, option in (("seed", "run.seed"), ("queries_per_step", "data.queries_per_step")):
            if state_dict[name] != getattr(self, name):
                raise DataError(
                    f"the checkpoint was made with {name} {state_dict[name]}, but this run has {getattr(self, name)}.",
                    hint=f"resume with --{option}={state_dict[name]}, or start a new run with another run.name.",
                )
        self._first_step = state_dict["step"]

    def refuse_minibatches(self, module: TeamModule) -> None:
        """Require that a step fills the minibatches of every trained role.

        Args:
            module: The root module; its bases need not be loaded.

        Raises:
            ConfigurationError: A role has more minibatches than a step can fill.
        """
        refuse_empty_minibatches(
            module.roles, module.trained_roles, queries=self.queries_per_step, rollouts=self.rollouts_per_query
        )

    def _refuse_empty_steps(self, trainer: Trainer) -> None:
        if trainer.max_steps < 1:
            raise ConfigurationError(
                f"trainer.max_steps is {trainer.max_steps}, so the run has no end.",
                hint="set trainer.max_steps to the number of training steps.",
            )
        if self.source == "policy" and self.rollouts_per_query < 2:
            raise ConfigurationError(
                f"rollouts_per_query is {self.rollouts_per_query}: a group of one has no relative advantage.",
                hint="give at least 2 (the paper uses 8).",
            )
        if self.queries_per_step < trainer.world_size:
            raise ConfigurationError(
                f"queries_per_step is {self.queries_per_step} for {trainer.world_size} ranks.",
                hint="give each rank at least one query per step.",
            )
        self.refuse_minibatches(self.module)

    def _source(self, questions: Sequence[Question], part: range) -> GroupSource:
        """Where the groups of a rank's part of each step come from."""
        if self.command.replayed is not None:
            return RecordedGroups(self.command.replayed, self.module.roles)
        return PlayedGroups(
            self._play,
            QuestionOrder(questions, per_step=self.queries_per_step, seed=self.seed),
            part,
            rollouts=self.rollouts_per_query,
            script=None if self.source == "policy" else (self._conversations or self.task).script,
            resume_logs=self.resume_logs,
        )

    def _play(self, request: PlayRequest) -> PlayResult:
        """Play and score. The players are built on first use, because they need the loaded policies."""
        if self._playing is None:
            assert self.trainer is not None
            self._playing = Playing(
                self.trainer,
                self.task,
                schedule=self.schedule,
                cache_bytes=self.cache_bytes,
                store=self.store,
                peers=self.peers,
                seed=self.seed,
                shared=self.command.shared,
            )
        return self._playing.play(request)

    def _play_held_out(self, questions: Sequence[Question], first: int, resume_log: ResumeLog | None) -> PlayResult:
        """Play held-out questions at the validation temperature."""
        assert self.trainer is not None
        request = PlayRequest(
            questions,
            step=self.module.num_steps,
            rollouts=1 if self.trainer.predicting else self.validation.repeats,
            stage="predict" if self.trainer.predicting else "validate",
            first_query=first,
            temperature=self.validation.temperature,
            resume_log=resume_log,
        )
        return self._play(request)

    def _held_out(self, validation: ValidationConfig) -> HeldOutBatches:
        questions = self.task.questions(validation.split)[: validation.questions]
        return self._held_out_batches(questions, validation, f"split {validation.split} has no questions.")

    def _held_out_batches(
        self, questions: Sequence[Question], validation: ValidationConfig, problem: str
    ) -> HeldOutBatches:
        if not questions:
            raise DataError(
                problem,
                hint="check the task's paths and filters, or fit without validation: trainer.limit_val_batches=0.",
            )
        if len(questions) < (ranks := self.trainer.world_size if self.trainer is not None else 1):
            raise ConfigurationError(
                f"{len(questions)} held-out questions are too few for {ranks} ranks.",
                hint="raise validation.questions to at least one per rank, or use fewer ranks.",
            )
        return HeldOutBatches(
            self._play_held_out,
            lambda: self.resume_logs.held_out_log(self.module.num_steps),
            questions,
            self._part(len(questions)),
            self.task,
            validation,
        )

    def _part(self, count: int) -> range:
        """Indices of the queries that this rank plays."""
        trainer = self.trainer
        return range(count) if trainer is None else part_of(count, trainer.global_rank, trainer.world_size)
