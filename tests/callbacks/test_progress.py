from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from lightning.pytorch import Trainer
from rich.console import Console

from mgrpo_lightning.callbacks import TeamProgress
from tests.callbacks.fakes import ROLES


@pytest.fixture
def progress() -> Iterator[TeamProgress]:
    """A progress callback on a terminal that is a string."""
    callback = TeamProgress()
    callback._console = Console(file=io.StringIO(), force_terminal=True, width=100)
    yield callback
    callback.disable()


def fake_trainer(**changes: Any) -> Any:
    return cast(
        "Any",
        SimpleNamespace(max_steps=10, global_step=3, callback_metrics={}, state=SimpleNamespace(fn="fit"), **changes),
    )


def bars(progress: TeamProgress) -> dict[str, tuple[float, float | None]]:
    """Completed and total by description."""
    assert progress._bars is not None
    return {task.description: (task.completed, task.total) for task in progress._bars.tasks}


def test_it_replaces_lightnings_bar() -> None:
    trainer = Trainer(callbacks=[TeamProgress()], logger=False, enable_checkpointing=False, accelerator="cpu")
    assert isinstance(trainer.progress_bar_callback, TeamProgress)


def test_a_bar_over_the_run_and_one_inside_the_rollout_phase(progress: TeamProgress) -> None:
    module = cast("Any", SimpleNamespace(roles=ROLES, local_roles=["main"], metrics={}))
    progress.on_train_start(fake_trainer(), module)
    progress.on_play_start(total=64, stage="train")
    for _ in range(5):
        progress.on_play_advance()
    assert bars(progress) == {"training": (3, 10), "playing": (5, 64)}
    progress.on_play_end(groups=[], stage="train", step=3)
    progress.on_train_batch_end(fake_trainer(), module, None, None, 0)
    assert bars(progress) == {"training": (3, 10)}
    progress.on_train_end(fake_trainer(), module)
    assert progress._bars is None


def test_the_line_of_a_step_has_the_roles_that_are_played_here_and_one_line_in_a_file() -> None:
    progress, written = TeamProgress(), io.StringIO()
    progress._console = Console(file=written, width=40)
    metrics = {"main/reward": 0.5, "main/format_rate": 0.75, "searcher/trajectories": 0, "seconds/play": 2.0}
    module = cast("Any", SimpleNamespace(roles=ROLES, local_roles=["main"], metrics=metrics))
    progress.on_train_start(fake_trainer(), module)
    for _ in range(2):
        progress.on_play_start(total=4, stage="train")
        for _ in range(4):
            progress.on_play_advance()
        progress.on_play_end(groups=[], stage="train", step=3)
        progress.on_train_batch_end(fake_trainer(), module, None, None, 0)
    progress.on_train_end(fake_trainer(), module)
    assert written.getvalue() == "step  3/10 | main: reward 0.50, valid 75% | play 2.0 s\n" * 2


def test_an_exception_gives_the_terminal_back(progress: TeamProgress) -> None:
    progress.on_play_start(total=1, stage="validate")
    bar = progress._bars
    assert bar is not None
    progress.on_exception(fake_trainer(), cast("Any", None), KeyboardInterrupt())
    assert bar.finished or not bar.live.is_started


def test_switched_off_it_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TeamProgress(enabled=False)
    progress.on_play_start(total=1, stage="train")
    progress.on_play_advance()
    progress.print("hello")
    assert progress._bars is None
    assert capsys.readouterr().out == ""
