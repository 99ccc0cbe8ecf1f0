"""Team, the public class of the package: load a team from a run or a team file, ask it questions, train it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from typing_extensions import override

from mgrpo_lightning.agents.live_players import LivePlayers
from mgrpo_lightning.agents.play import PlayRequest, Watch
from mgrpo_lightning.commands.fit import MgrpoCLI, checkpoint_to_start, make_cli
from mgrpo_lightning.commands.own_trainer import equip
from mgrpo_lightning.commands.saved_run import cli_of, role_folders
from mgrpo_lightning.commands.yaml_text import dumped
from mgrpo_lightning.data.playing import make_players
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.persistence.checkpoints import checkpoints, named_checkpoint
from mgrpo_lightning.protocol.tree import render
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Call, Group, Rollout

if TYPE_CHECKING:
    from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
    from mgrpo_lightning.modules.team import TeamModule


@dataclass(slots=True)
class Answered(Rollout):
    """A rollout that was played for a user: main's trajectory and those of its sub-agents."""

    @property
    def answer(self) -> str | None:
        """Main's answer; None if it gave none, for example because its last turn broke the format."""
        return self.main.answer

    @property
    def calls(self) -> list[Call]:
        """The calls of main and of all sub-agents, trajectory by trajectory."""
        return [call for trajectory in self.trajectories() for call in trajectory.calls]

    @property
    def tree(self) -> str:
        """The turns, calls, results and answers as a tree of text lines."""
        return render(self)

    @override
    def __str__(self) -> str:
        return self.tree


class Team:
    """A team of LLM agents that answers questions and can be trained.

    ::

        team = Team.from_run("runs/quickstart")
        rollout = team.ask("What is the capital of the country that borders Peru and has the code EC?")
        print(rollout.answer)
        print(rollout.tree)

    The weights are loaded at the first question. Questions may come from several threads and from coroutines; they are
    played in one batch. A team plays either questions or a ``fit``: a fit ends the questions that are in play.

    Args:
        cli: Model, data module and trainer, made of a team file.
        checkpoint: Checkpoint of the adapters; None: the adapters that the team file names, or new ones.
    """

    def __init__(self, cli: MgrpoCLI, checkpoint: Path | None = None) -> None:
        self.model: TeamModule = cli.model
        """The root LightningModule."""
        self.data: AlignedTrajectoryDataModule = cli.datamodule
        """The LightningDataModule, with the task."""
        self._cli = cli
        self._checkpoint = checkpoint
        self._live: LivePlayers | None = None
        self._asked = 0

    @classmethod
    def from_run(
        cls, folder: str | Path, *, checkpoint: str | Path = "last", settings: Mapping[str, Any] | None = None
    ) -> Self:
        """Load the team that a run has trained.

        Args:
            folder: The run folder, also that of a run whose roles were trained in processes of their own.
            checkpoint: ``last``, ``best`` or ``best:ROLE`` (see ``named_checkpoint``), or a path. A decoupled run gives
                the adapters that its roles exported.
            settings: Changed settings by dotted key, such as ``{"model.roles.main.limits.turns": 8}``.

        Raises:
            ConfigurationError: The folder is not a run, or a setting cannot be used.
            DataError: No checkpoint loads.
        """
        folder = Path(folder)
        options = _options({"run.root": str(folder.absolute().parent), "run.name": folder.absolute().name})
        if roles := role_folders(folder):
            exported = {role.name: role / "adapters" / role.name for role in roles}
            paths = {f"model.roles.{name}.adapter.path": str(path) for name, path in exported.items() if path.is_dir()}
            cli = cli_of(roles[0], [*options, *_options({"run.role": None, **paths, **(settings or {})})])
            return cls(cli)
        cli = cli_of(folder, [*options, *_options(settings or {})])
        if checkpoint == "last" and not checkpoints(folder / "checkpoints"):
            return cls(cli)
        return cls(cli, named_checkpoint(folder, str(checkpoint)))

    @classmethod
    def from_file(cls, *paths: str | Path, settings: Mapping[str, Any] | None = None) -> Self:
        """Make a team of team files, as ``mgrpo fit`` does.

        Args:
            *paths: At least one team file; of several, the later one wins.
            settings: Changed settings by dotted key, such as ``{"trainer.max_steps": 4}``; they win over the files.

        Raises:
            ConfigurationError: A file or a setting cannot be used.
        """
        files = [word for path in paths for word in ("--config", str(path))]
        return cls(make_cli([*files, *_options(settings or {})], run=False))

    def ask(self, question: str | Question, *, temperature: float | None = None) -> Answered:
        """Ask one question and wait for the answer.

        Args:
            question: The question, as text or from the task.
            temperature: Sampling temperature of all roles, 0 for greedy; None: that of the validation.

        Raises:
            MgrpoError: A model or the team file cannot be used.
        """
        future = self.submit(question, temperature=temperature)
        try:
            return future.result()
        except BaseException:  # an interrupt while it waits: nobody needs the answer any more
            future.cancel()
            raise

    async def play(self, questions: Iterable[str | Question], *, temperature: float | None = None) -> list[Answered]:
        """Ask many questions at once; the event loop of the caller goes on meanwhile.

        Args:
            questions: The questions, as text or from the task.
            temperature: As in ``ask``.

        Returns:
            The rollouts, in the order of the questions.
        """
        # In a thread, because the first question loads the weights.
        asked = list(questions)
        futures = await asyncio.to_thread(lambda: [self.submit(one, temperature=temperature) for one in asked])
        waiting = [asyncio.wrap_future(future) for future in futures]
        try:
            return list(await asyncio.gather(*waiting))
        finally:
            for one in waiting:
                one.cancel()

    def submit(
        self, question: str | Question, *, temperature: float | None = None, watch: Watch | None = None
    ) -> Future[Answered]:
        """Ask one question without waiting for the answer.

        Args:
            question: The question, as text or from the task.
            temperature: As in ``ask``.
            watch: Called for each new message of a trajectory, in the agents' thread; see ``PlayRequest.watch``.

        Returns:
            A future of the rollout. To cancel it ends the play of this question.

        Raises:
            DataError: The question fills main's context.
            MgrpoError: A model or the team file cannot be used.
        """
        live = self._players()
        if isinstance(question, str):
            question = Question(id="asked", text=question, answers=())
        self._refuse_long(question, live)
        self._asked += 1
        # Each question has an index of its own, so that its random numbers depend on nobody else's.
        request = PlayRequest(
            [question],
            step=self.model.num_steps,
            rollouts=1,
            stage="predict",
            first_query=self._asked,
            temperature=self.data.validation.temperature if temperature is None else temperature,
            watch=watch,
        )
        playing = live.play(request)
        answered: Future[Answered] = Future()

        def finish(done: Future[list[Group]]) -> None:
            if done.cancelled() or not answered.set_running_or_notify_cancel():
                answered.cancel()
            elif (error := done.exception()) is not None:
                answered.set_exception(error)
            else:
                rollout = done.result()[0].rollouts[0]
                answered.set_result(Answered(rollout.main, rollout.subs, rollout.scores))

        answered.add_done_callback(lambda done: playing.cancel() if done.cancelled() else None)
        playing.add_done_callback(finish)
        return answered

    @property
    def folder(self) -> Path:
        """The run folder, into which a fit writes."""
        return Path(self._cli.trainer.default_root_dir)

    def load(self) -> None:
        """Load the weights now; without this, the first question does."""
        if not self.model.policies:
            self.model.to(self._cli.trainer.strategy.root_device)
            self.model.configure_model()
            if self._checkpoint is not None:
                state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
                self.model.on_load_checkpoint(state)

    def fit(
        self,
        trainer: Trainer | None = None,
        *,
        callbacks: Sequence[Callback] = (),
        logger: Logger | None = None,
        ckpt_path: str | None = None,
    ) -> list[dict[str, Any]]:
        """Train the team as ``mgrpo fit`` does: with journal, checkpoints, exports and tables in the run folder.

        Args:
            trainer: A trainer of your own, made with ``default_root_dir=team.folder``. It gets the callbacks of this
                package that it lacks. None: the trainer of the team file.
            callbacks: More callbacks.
            logger: Logger in place of TensorBoard.
            ckpt_path: Checkpoint to resume from, or ``last``; None starts at step 0.

        Returns:
            The validations of the run, in their order; the first one is of the untrained team.

        Raises:
            ConfigurationError: The run folder already holds a run, or the trainer cannot train a team.
        """
        self.close()
        trainer = trainer or self._cli.trainer
        equip(trainer, self._cli, callbacks, logger)
        lock = self._cli.run_lock
        lock.take(trainer, "fit")  # before looking for a checkpoint: no other process writes now
        try:
            start = checkpoint_to_start(trainer, "fit", ckpt_path)
            trainer.fit(self.model, self.data, ckpt_path=start, weights_only=True)
        finally:
            lock.release()
        return self.model.validation_results

    def close(self) -> None:
        """End all questions in play. The team can be asked again."""
        live, self._live = self._live, None
        if live is not None:
            live.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_long(self, question: Question, live: LivePlayers) -> None:
        context = self.model.roles[self.model.main].limits.context
        length = len(live.seats[self.model.main].prompt(question.text)[0])
        if length >= context:
            raise DataError(
                f"the question {question.text[:40]!r} makes a prompt of {length} tokens, but main's context "
                f"has {context}.",
                hint="ask a shorter question, or train a team with a larger limits.context.",
            )

    def _players(self) -> LivePlayers:
        if self._live is None:
            if self.model.local_roles != list(self.model.roles):
                raise ConfigurationError(
                    f"this process plays only {self.model.local_roles} of the team.",
                    hint="leave run.role out: a team that answers plays all roles.",
                )
            self.load()
            players = make_players(
                self.model, self.data.task, "eager", cache_bytes=self.data.cache_bytes, seed=self.data.seed
            )
            self._live = LivePlayers(players)
        return self._live


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Settings as options of a command line."""
    return [f"--{key}={_text(value)}" for key, value in settings.items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumped(value, one_line=True).removesuffix("...\n").strip()
