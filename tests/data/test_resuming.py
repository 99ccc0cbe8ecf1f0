"""What `mgrpo validate` and `mgrpo test` keep: for which task, under which schedule, and until when."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from mgrpo_lightning.data.resuming import open_held_out, remove_finished

OTHER: dict[str, Any] = {"settings": "another task", "seed": 1, "adapter": "another"}


def module_of(folder: Path, fn: TrainerFn = TrainerFn.VALIDATING, **changes: Any) -> Any:
    """As much of a data module as is asked."""
    values = {"settings": "task", "seed": 0, "adapter": "adapter", "schedule": "eager"} | changes
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=fn),
        checkpoint_callback=ModelCheckpoint(folder / "checkpoints"),
        default_root_dir=str(folder),
        global_rank=0,
        is_global_zero=True,
    )
    policy = SimpleNamespace(fingerprint=lambda: values["adapter"])
    return SimpleNamespace(trainer=trainer, module=SimpleNamespace(policies={"main": policy}), **values)


def played(data: Any) -> int | None:
    """What is taken up of a batch, None where nothing is kept; one more turn is finished then."""
    with open_held_out(data, 8, first=0) as memory:
        if memory is None:
            return None
        found = memory.found
        memory.put(f"turn {found}", {})
    return found


def test_what_was_finished_is_kept_until_the_results_are_written(tmp_path: Path) -> None:
    data = module_of(tmp_path)
    assert [played(data), played(data)] == [0, 1]
    assert played(module_of(tmp_path, TrainerFn.TESTING)) == 0, "of another split"
    remove_finished(data.trainer)
    assert played(data) == 0
    assert played(module_of(tmp_path, TrainerFn.TESTING)) == 1
    remove_finished(data.trainer)
    remove_finished(module_of(tmp_path, TrainerFn.TESTING).trainer)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", OTHER)
def test_it_counts_for_the_same_task_seed_and_adapters_alone(tmp_path: Path, name: str) -> None:
    assert [played(module_of(tmp_path)) for _ in range(2)] == [0, 1]
    assert played(module_of(tmp_path, **{name: OTHER[name]})) == 0


@pytest.mark.parametrize("changes", [{"settings": None}, {"schedule": "rounds"}])
def test_nothing_is_kept(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert played(module_of(tmp_path, **changes)) is None
    assert not [*tmp_path.iterdir()]


def test_it_does_not_touch_what_a_fit_keeps(tmp_path: Path) -> None:
    fit = module_of(tmp_path, TrainerFn.FITTING, settings=None)
    assert played(fit) == 0
    data = module_of(tmp_path)
    assert played(data) == 0
    remove_finished(data.trainer)
    assert played(fit) == 1
