"""Team, the public class: its answers, alone and at once; how it is loaded; and a fit with the user's own trainer."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

import mgrpo_lightning
from mgrpo_lightning import Question, Team
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError, DataError
from tests.support.team_file import write_team_file

pytestmark = pytest.mark.usefixtures("own_argv")


@pytest.fixture(scope="module")
def loaded(root: Path) -> Team:
    return Team.from_file(root / "configs" / "quickstart.yaml")


@pytest.fixture
def pocket(loaded: Team) -> Iterator[Team]:
    with loaded:
        yield loaded


def test_the_names_at_the_top() -> None:
    assert mgrpo_lightning.__version__.count(".") == 2
    assert {getattr(mgrpo_lightning, name) for name in mgrpo_lightning.__all__}
    with pytest.raises(AttributeError, match="no attribute 'Teams'"):
        mgrpo_lightning.Teams  # noqa: B018


def test_a_rollout_has_its_answer_its_calls_and_its_tree(pocket: Team) -> None:
    rollout = pocket.ask("What is the capital of Peru?")
    assert rollout.answer == "Lima"
    assert [call.name for call in rollout.calls] == ["searcher", "search", "visit"]
    assert str(rollout) == rollout.tree
    assert rollout.tree.splitlines()[0] == "main: What is the capital of Peru?"


def test_many_at_once_from_a_running_event_loop_are_those_asked_one_by_one(pocket: Team) -> None:
    questions = pocket.data.task.questions("validation")[:8]

    async def notebook() -> tuple[list[str | None], int]:
        turns = 0
        playing = asyncio.ensure_future(pocket.play(questions))
        while not playing.done():
            turns += 1
            await asyncio.sleep(0.01)
        # A cell may also call the plain function; it has an event loop of its own.
        assert pocket.ask(questions[0]).answer == playing.result()[0].answer
        return [rollout.answer for rollout in playing.result()], turns

    together, turns = asyncio.run(notebook())
    assert turns > 5, "the caller's loop went on"
    assert together == [pocket.ask(question.text).answer for question in questions]


def test_a_temperature_samples_and_every_question_has_numbers_of_its_own(pocket: Team) -> None:
    question = Question("q", pocket.data.task.questions("validation")[0].text, ())
    rollouts = asyncio.run(pocket.play([question] * 6, temperature=1.5))
    assert len({tuple(span.ids for span in rollout.main.spans) for rollout in rollouts}) > 1
    assert {rollout.main.temperature for rollout in rollouts} == {1.5}


def test_a_question_that_fills_the_context_is_told_before_it_is_played(pocket: Team) -> None:
    with pytest.raises(DataError, match=r"makes a prompt of \d+ tokens, but main's context has 512"):
        pocket.ask("which " * 600)


def test_a_closed_team_can_be_asked_again(pocket: Team) -> None:
    pocket.close()
    assert pocket.ask("What is the capital of Chad?").answer == "N'Djamena"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """The run folder of a fit of two steps."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mgrpo"])
        main(["fit", "--config", str(write_team_file(folder, tiny)), "--trainer.max_steps=2"])
    return folder / "runs" / "toy"


def adapters(team: Team) -> dict[str, dict[str, list[float]]]:
    team.load()
    return {
        role: {name: tensor.flatten().tolist() for name, tensor in policy.adapter_state().items()}
        for role, policy in team.model.adapters.items()
    }


def test_from_run_has_the_adapters_and_settings_of_the_run(finished: Path) -> None:
    exported = {f"model.roles.{role}.adapter.path": str(finished / "adapters" / role) for role in ("main", "searcher")}
    with (
        Team.from_run(finished) as team,
        Team.from_run(finished, checkpoint=finished / "checkpoints" / "step=000002.ckpt") as same,
    ):
        assert team.folder == finished
        assert adapters(team) == adapters(same) == adapters(Team.from_file(finished / "config.yaml", settings=exported))
        assert team.model.num_steps == same.model.num_steps == 2
        assert team.ask("word of 3?").tree == same.ask("word of 3?").tree
    changed = Team.from_run(finished, settings={"model.roles.main.limits.turns": 2, "data.validation.temperature": 0.5})
    assert changed.model.roles["main"].limits.turns == 2
    with pytest.raises(ConfigurationError, match="is not a run folder"):
        Team.from_run(finished.parent)


def test_from_run_puts_the_roles_of_a_decoupled_run_together(tmp_path: Path, finished: Path) -> None:
    whole = tmp_path / "apart"
    (whole / "store").mkdir(parents=True)
    config = yaml.safe_load((finished / "config.yaml").read_text())
    for role in ("main", "searcher"):  # what two processes leave behind
        config["run"] |= {"name": "apart", "role": role}
        shutil.copytree(finished / "adapters" / role, whole / role / "adapters" / role)
        (whole / role / "config.yaml").write_text(yaml.safe_dump(config))
    with Team.from_run(whole) as team:
        assert team.model.local_roles == ["main", "searcher"]
        assert adapters(team) == adapters(Team.from_run(finished))


def test_a_role_alone_is_no_team_that_answers(tmp_path: Path, tiny: Path) -> None:
    team = Team.from_file(write_team_file(tmp_path, tiny), settings={"run.role": "main"})
    with pytest.raises(ConfigurationError, match=r"plays only \['main'\]"):
        team.ask("word of 3?")


class Heard(Callback):
    """A user's own callback."""

    def __init__(self) -> None:
        self.steps = 0
        self.plays: list[str] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1

    def on_play_start(self, *, total: int, stage: str) -> None:
        self.plays.append(stage)


@pytest.mark.parametrize("own", [False, True])
def test_a_fit_with_own_callbacks_logger_and_trainer_writes_all_that_mgrpo_fit_writes(
    tmp_path: Path, tiny: Path, own: bool
) -> None:
    team = Team.from_file(write_team_file(tmp_path, tiny), settings={"trainer.max_steps": 2})
    heard, logger = Heard(), CSVLogger(tmp_path / "csv")
    trainer = None
    if own:
        trainer = Trainer(default_root_dir=team.folder, max_steps=2, accelerator="cpu", num_sanity_val_steps=0)
    validations = team.fit(trainer, callbacks=[heard], logger=logger)
    assert heard.steps == 2
    assert heard.plays.count("train") == 2
    assert validations
    run = tmp_path / "runs" / "toy"
    assert len(list((run / "journal").glob("step-*.parquet"))) == 2
    assert sorted(path.name for path in (run / "adapters").iterdir()) == ["main", "searcher"]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step=000002.ckpt"]
    assert json.loads((run / "results.json").read_text())["steps"] == 2
    assert (run / "config.yaml").is_file()
    assert list(Path(logger.log_dir).glob("metrics.csv"))
    assert team.ask("word of 3?").main.segments, "it can be asked after it was trained"
    with pytest.raises(ConfigurationError, match="already holds a run of 2 steps"):
        team.fit(trainer)


def test_a_trainer_with_another_folder_is_refused(tmp_path: Path, tiny: Path) -> None:
    team = Team.from_file(write_team_file(tmp_path, tiny))
    with pytest.raises(ConfigurationError, match=r"but the run folder is .*toy.*default_root_dir=team.folder"):
        team.fit(Trainer(default_root_dir=tmp_path, max_steps=2, accelerator="cpu", logger=False))
