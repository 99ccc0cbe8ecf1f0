"""What `mgrpo validate` and `mgrpo test` keep: for which task, under which schedule, and until when."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from mgrpo_lightning.data.resuming import ResumeLogs, played_settings

OTHER: dict[str, Any] = {"settings": "another task", "seed": 1, "adapter": "another"}


def logs_of(folder: Path, fn: TrainerFn = TrainerFn.VALIDATING, *, rank: int = 0, **changes: Any) -> ResumeLogs:
    """The resume logs of a command, with as much of a trainer and a policy as is asked."""
    values: dict[str, Any] = {"settings": "task", "seed": 0, "adapter": "adapter", "schedule": "eager"} | changes
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        checkpoint_callback=ModelCheckpoint(folder / "checkpoints"),
        default_root_dir=str(folder),
        global_rank=rank,
        is_global_zero=rank == 0,
    )
    policy: Any = SimpleNamespace(fingerprint=lambda: values["adapter"])
    return ResumeLogs(trainer, values["schedule"], values["seed"], {"main": policy}, values["settings"])


def played(logs: ResumeLogs) -> int | None:
    """How much is taken up, None where nothing is kept; one more turn is finished then."""
    with logs.held_out_log(8) as resume_log:
        if resume_log is None:
            return None
        found = resume_log.found
        resume_log.put(f"turn {found} of rank {logs.trainer.global_rank}", {})
    return found


def test_what_was_finished_is_kept_until_the_results_are_written(tmp_path: Path) -> None:
    logs = logs_of(tmp_path)
    assert [played(logs), played(logs)] == [0, 1]
    assert played(logs_of(tmp_path, TrainerFn.TESTING)) == 0, "of another split"
    logs.remove_finished()
    assert played(logs) == 0
    assert played(logs_of(tmp_path, TrainerFn.TESTING)) == 1
    logs.remove_finished()
    logs_of(tmp_path, TrainerFn.TESTING).remove_finished()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", OTHER)
def test_it_counts_for_the_same_alone_and_others_do_not_touch_it(tmp_path: Path, name: str) -> None:
    assert [played(logs_of(tmp_path)) for _ in range(2)] == [0, 1]
    other = logs_of(tmp_path, **{name: OTHER[name]})
    assert played(other) == 0
    other.remove_finished()
    assert played(logs_of(tmp_path)) == 2


def test_what_several_ranks_have_finished_is_taken_up_by_however_many(tmp_path: Path) -> None:
    assert [played(logs_of(tmp_path, rank=rank)) for rank in range(3)] == [0, 1, 2]
    assert played(logs_of(tmp_path)) == 3
    logs_of(tmp_path, rank=1).remove_finished()
    assert played(logs_of(tmp_path)) == 4, "the first rank removes it"


def test_judges_and_how_services_are_asked_have_no_part_in_what_is_played() -> None:
    web = {"engine": "searxng", "url": "http://localhost", "timeout": 3, "key_variable": "KEY"}
    task = {"path": "a.jsonl", "judge": {"model": "wrong"}, "tools": [{"init_args": web}]}
    assert played_settings(task) == {
        "path": "a.jsonl",
        "tools": [{"init_args": {"engine": "searxng", "url": "http://localhost"}}],
    }


@pytest.mark.parametrize("changes", [{"settings": None}, {"schedule": "rounds"}])
def test_nothing_is_kept(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert played(logs_of(tmp_path, **changes)) is None
    assert not [*tmp_path.iterdir()]


def test_it_does_not_touch_what_a_fit_keeps(tmp_path: Path) -> None:
    fit = logs_of(tmp_path, TrainerFn.FITTING, settings=None)
    assert played(fit) == 0
    logs = logs_of(tmp_path)
    assert played(logs) == 0
    logs.remove_finished()
    assert played(fit) == 1
