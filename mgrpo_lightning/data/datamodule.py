"""AlignedTrajectoryDataModule: plays the team, scores its rollouts, and streams aligned batches to the trainer."""

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


@ranged("data.init_args")
class AlignedTrajectoryDataModule(LightningDataModule):
    """Streams one ``TeamBatch`` per optimizer step, played with the adapters as they are at that moment.

    Args:
        task: Questions, tools and scoring.
        queries_per_step: Queries per optimizer step.
        rollouts_per_query: K, the size of a group.
        alignment: How sub-agent calls fill the K x d slots of a query; a role may have its own d (``slots``).
        schedule: ``rounds`` is bitwise reproducible, ``eager`` batches whatever waits, and keeps finished turns of the
            step in play in the run folder's ``open_steps``, from which a killed run goes on.
        source: ``policy`` plays the team; ``demonstrations`` plays the task's scripts (warm start).
        validation: How held-out questions are evaluated.
        selection: Which training questions are asked; None: all.
        cache_gib: Bound on the keys and values of one role's open conversations, in GiB; None: all that they take.
            Where it is short, turns wait for each other, and what a conversation forgot is computed again.
        store: Folder of the store through which other processes play the roles that are not local; None: all are.
        peers: What happens when one of these is gone.
        journal: Folder of the run's journal, from which a role with a lag or a queue goes on after a restart.
        seed: Fixes questions, sampling and alignment.

    Raises:
        ConfigurationError: A number out of its range, or a group of one with the mgrpo objective.
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
        """Questions given on the command line, for ``mgrpo predict``."""
        self.recorded: Path | None = None
        """A journal whose groups take the place of playing, for ``mgrpo replay``."""
        self._playing: Playing | None = None
        self.first_step = 0  # steps that are done: a resumed run begins behind them
        self.settings: str | None = None
        """What ``mgrpo validate`` and ``mgrpo test`` play, beside seed and roles; None: they keep no finished turns."""
        self.shared: dict[str, Any] | None = None  # settings that processes of other roles must have alike
        self.earlier_seconds = 0.0  # for which killed runs had played what the held-out questions took up

    @property
    def module(self) -> TeamModule:
        """The root module of the attached trainer."""
        assert self.trainer is not None
        return self.trainer.lightning_module  # type: ignore[return-value]

    @property
    def playing(self) -> Playing:
        """The players; built on first use, when the policies are loaded."""
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
        return batch  # rows travel with their micro-batch; a whole step would not fit

    @override
    def teardown(self, stage: str) -> None:
        if stage == "fit":
            assert self.trainer is not None
            remove_closed_steps(self.trainer, self.schedule)
        if self._playing is not None:
            self._playing.close()
        self._playing, self.first_step = None, 0  # the next command of a notebook has another trainer
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
            questions: Its queries.
        """
        started, idle, counts = time.perf_counter(), 0.0, dict[str, int]()
        module = self.module
        due = self._backlog.due(step)
        module.begin(due)
        if self.recorded is not None:
            groups = recorded_groups(self.recorded, step, module.roles)
        else:
            groups = self._play(step, questions, meanwhile=module.advance if due else None)
            idle, counts = self.playing.idle, self.playing.counts
        played = {role: self._align(groups, role, step) for role in module.trained_roles}
        self._backlog.add(step, groups)
        self.rollouts = groups
        seconds = {"play": time.perf_counter() - started, "idle": idle}
        return TeamBatch(step, groups, played | due, played, seconds, counts)

    def _play(self, step: int, questions: Sequence[Question], meanwhile: Callable[[], bool] | None) -> list[Group]:
        """This rank's part of a step; what was finished of it before a restart is taken up."""
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
        """This rank's part of an earlier step, from the journal."""
        part = self._part(self.queries_per_step)
        return played_before(self.recorded or self.journal, step, self.module.roles, part)

    def played_batch(self, questions: Sequence[Question], *, first: int, memory: OpenStep | None = None) -> list[Group]:
        """Rollouts of held-out questions, at the validation temperature.

        Args:
            questions: What to ask.
            first: Index of the first of them in the split, so that random numbers do not depend on the batching.
            memory: What is finished of them.
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
        """Of a number of queries, those that this rank plays; a replay has the whole journal."""
        trainer = self.trainer
        if trainer is None or self.recorded is not None:
            return range(count)
        return part_of(count, trainer.global_rank, trainer.world_size)
