"""AlignedTrajectoryDataModule: play the team, score the rollouts, and yield aligned batches to the trainer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from typing_extensions import override

from mgrpo_lightning.agents.team_checks import check_team
from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.data.align import align_role, of_all_ranks
from mgrpo_lightning.data.backlog import Backlog
from mgrpo_lightning.data.peers import PeersConfig
from mgrpo_lightning.data.playing import Playing
from mgrpo_lightning.data.questions import QuestionStream
from mgrpo_lightning.data.recorded import recorded_groups
from mgrpo_lightning.data.resuming import open_step, played_before, remove_closed_steps, saved_steps
from mgrpo_lightning.data.selection import SelectionConfig, selected
from mgrpo_lightning.data.streams import PlayedStream, TrainStream, part_of
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.modules.validation import ValidationConfig
from mgrpo_lightning.persistence.resume_log import OpenStep
from mgrpo_lightning.ranges import Count, Range, Seed, ranged
from mgrpo_lightning.records.batch import AlignedBatch, TeamBatch
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.tasks.base import Task

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule


CacheSize = Annotated[float, Range(0, 2**20, above=True)]


@ranged("data")
class AlignedTrajectoryDataModule(LightningDataModule):
    """Yield one ``TeamBatch`` per optimizer step, played with the current adapters.

    Args:
        task: Questions, tools and scoring.
        queries_per_step: Queries per optimizer step.
        rollouts_per_query: K, the number of rollouts in a group.
        alignment: How sub-agent calls fill the K x d slots of a query; a role may set its own d (``slots``).
        schedule: ``rounds`` is bitwise reproducible; ``eager`` batches ready turns and keeps a resume log.
        source: ``policy`` plays the team; ``demonstrations`` plays the task's scripts (warm start).
        validation: How held-out questions are evaluated.
        selection: Which training questions are used; None: all.
        cache_gib: Limit of one role's KV cache, in GiB. A small one costs waiting and recomputation. None: no limit.
        store: Folder of the store that connects processes of different roles; None: this process plays all roles.
        peers: What happens when another role's process is gone.
        journal: Folder of the run's journal. A role with a lag or a queue reads it after a restart.
        seed: Fixes the order of questions, sampling and alignment.

    Raises:
        ConfigurationError: A number is out of its range, or a group has one rollout with the mgrpo objective.
    """

    def __init__(
        self,
        task: Task,
        queries_per_step: Count = 8,
        rollouts_per_query: Count = 8,
        alignment: AlignmentConfig = AlignmentConfig(),  # noqa: B008 - frozen, and --help shows its fields
        schedule: Literal["rounds", "eager"] = "eager",
        source: Literal["policy", "demonstrations"] = "policy",
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
        self.validation = validation
        self.selection = selection
        self.cache_bytes = None if cache_gib is None else int(cache_gib * 2**30)
        self.store = None if store is None else Path(store)
        self.peers = peers
        self.journal = None if journal is None else Path(journal)
        self.seed = seed
        self.rollouts: list[Group] | None = None
        """The groups of the current step, for callbacks."""
        self.asked: list[Question] = []
        """Questions from the command line, for ``mgrpo predict``."""
        self.recorded: Path | None = None
        """Folder of a journal whose groups replace playing, for ``mgrpo replay``."""
        self._playing: Playing | None = None
        self.first_step = 0  # steps done: a resumed run starts there
        self.settings: str | None = None
        """What ``mgrpo validate`` and ``test`` play, besides seed and roles: names their resume log; None: no log."""
        self.shared: dict[str, Any] | None = None  # settings that all roles must have alike
        self.earlier_seconds = 0.0  # seconds that killed runs spent on restored held-out turns

    @property
    def module(self) -> TeamModule:
        """The root module of the attached trainer."""
        assert self.trainer is not None
        return self.trainer.lightning_module  # type: ignore[return-value]

    @property
    def playing(self) -> Playing:
        """The players, built on first use because they need the loaded policies."""
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
                shared=self.shared,
            )
        return self._playing

    @cached_property
    def _backlog(self) -> Backlog:
        trained = {name: self.module.roles[name] for name in self.module.trained_roles}
        return Backlog(trained, self._align, self._played_before)

    @override
    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        steps = self.trainer.max_steps if stage == "fit" else 0
        check_team(self.module.roles, self.module.local_roles, self.task, steps=steps)

    @override
    def train_dataloader(self) -> TrainStream:
        assert self.trainer is not None
        if self.trainer.max_steps < 1:
            raise ConfigurationError(
                f"trainer.max_steps is {self.trainer.max_steps}, so the run has no length.",
                hint="set trainer.max_steps to the number of optimizer steps.",
            )
        questions = self.task.questions("train")
        if not questions:
            raise DataError("the task has no training questions.", hint="check its path and filters.")
        if self.selection is not None:
            questions = selected(questions, self.selection)
        if self.source == "policy" and self.rollouts_per_query < 2:
            raise ConfigurationError(
                f"rollouts_per_query is {self.rollouts_per_query}: a group of one has no relative advantage.",
                hint="give at least 2 (the paper uses 8).",
            )
        if self.queries_per_step < self.trainer.world_size:
            raise ConfigurationError(
                f"queries_per_step is {self.queries_per_step} for {self.trainer.world_size} ranks.",
                hint="give each rank at least one query a step.",
            )
        stream = QuestionStream(questions, per_step=self.queries_per_step, seed=self.seed)
        return TrainStream(self, stream, self.trainer.max_steps)

    @override
    def val_dataloader(self) -> PlayedStream:
        split = self.validation.split
        return self._played(self.task.questions(split)[: self.validation.questions], f"split {split} has no questions.")

    @override
    def test_dataloader(self) -> PlayedStream:
        return self._played(self.task.questions("test")[: self.validation.questions], "split test has no questions.")

    @override
    def predict_dataloader(self) -> PlayedStream:
        return self._played(self.asked, "there is no question to answer.")

    @override
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # only the rows of the current micro-batch move to the device; a whole step would not fit

    @override
    def teardown(self, stage: str) -> None:
        if stage == "fit":
            assert self.trainer is not None
            remove_closed_steps(self.trainer, self.schedule)
        if self._playing is not None:
            self._playing.close()
        self._playing, self.first_step = None, 0  # a notebook's next command has another trainer
        self.__dict__.pop("_backlog", None)

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
                    f"the checkpoint's stream has {name} {state_dict[name]}, this run {getattr(self, name)}.",
                    hint=f"resume with --{option}={state_dict[name]}, or start a new run (run.name).",
                )
        self.first_step = state_dict["step"]

    def train_batch(self, step: int, questions: Sequence[Question]) -> TeamBatch:
        """Play, score and align one step.

        Args:
            step: Training step.
            questions: The queries of the step, on all ranks.
        """
        started, idle, counts = time.perf_counter(), 0.0, dict[str, int]()
        module = self.module
        due = self._backlog.due(step)
        # Delayed batches are known already, so their update can run while the players wait for tools.
        module.begin(due)
        if self.recorded is not None:
            groups = recorded_groups(self.recorded, step, module.roles)
        else:
            groups = self._play(step, questions, meanwhile=module.advance if due else None)
            idle, counts = self.playing.idle, self.playing.counts
        played = {role: self._align(groups, role, step) for role in module.trained_roles}
        # After `due`: a step's own trajectories must not enter the queue before its batch is taken.
        self._backlog.add(step, groups)
        self.rollouts = groups
        seconds = {"play": time.perf_counter() - started, "idle": idle}
        return TeamBatch(step, groups, played | due, played, seconds, counts)

    def _play(self, step: int, questions: Sequence[Question], meanwhile: Callable[[], bool] | None) -> list[Group]:
        """Play this rank's part of a step; turns that finished before a restart come from the resume log."""
        assert self.trainer is not None
        part = self._part(len(questions))
        scripted = self.source == "demonstrations"
        with nullcontext() if scripted else open_step(self, step) as memory:
            groups = self.playing.play(
                questions[part.start : part.stop],
                step=step,
                rollouts=self.rollouts_per_query,
                stage="train",
                first=part.start,
                scripted=scripted,
                memory=memory,
                meanwhile=meanwhile,
            )
        if self.playing.exchange is not None:
            self.playing.exchange.close_step(step, saved=saved_steps(self.trainer))
        return groups

    def _align(self, groups: Sequence[Group], role: str, step: int) -> AlignedBatch:
        config = self.module.roles[role]
        alignment = replace(self.alignment, slots=config.slots or self.alignment.slots)
        aligned = align_role(groups, role, config.objective, alignment, seed=self.seed, step=step)
        return of_all_ranks(aligned, self.module.device)

    def _played_before(self, step: int) -> list[Group]:
        """Read this rank's part of an earlier step from the journal."""
        part = self._part(self.queries_per_step)
        return played_before(self.recorded or self.journal, step, self.module.roles, part)

    def played_batch(self, questions: Sequence[Question], *, first: int, memory: OpenStep | None = None) -> list[Group]:
        """Play held-out questions at the validation temperature.

        Args:
            questions: The questions of this batch.
            first: Index of the first question in the split, so that random numbers do not depend on the batching.
            memory: Resume log with finished turns of these questions.
        """
        assert self.trainer is not None
        return self.playing.play(
            questions,
            step=self.module.num_steps,
            rollouts=1 if self.trainer.predicting else self.validation.repeats,
            stage="predict" if self.trainer.predicting else "validate",
            first=first,
            temperature=self.validation.temperature,
            memory=memory,
        )

    def _played(self, questions: Sequence[Question], problem: str) -> PlayedStream:
        if not questions:
            raise DataError(
                problem,
                hint="check the task's paths and filters; a fit needs none with trainer.limit_val_batches=0.",
            )
        if len(questions) < (ranks := self.trainer.world_size if self.trainer is not None else 1):
            raise ConfigurationError(
                f"{len(questions)} held-out questions are asked by {ranks} ranks.",
                hint="give each rank at least one (validation.questions), or take fewer.",
            )
        return PlayedStream(self, questions, self.validation.per_batch, self._part(len(questions)))

    def _part(self, count: int) -> range:
        """Indices of the queries that this rank plays; a replay reads the whole journal on one rank."""
        trainer = self.trainer
        if trainer is None or self.recorded is not None:
            return range(count)
        return part_of(count, trainer.global_rank, trainer.world_size)
