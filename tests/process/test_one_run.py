"""Threads of one process: models are loaded one after the other, and a second run is refused while one goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.loading import Base, load_base
from mgrpo_lightning.process.one_run import begin_run, end_run
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def loaded(folder: Path) -> Base:
    return load_base(str(folder), quantization="none", compute_dtype=torch.float32)


def in_a_thread(call: Callable[[], object]) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_models_that_are_loaded_in_threads_are_the_model(tiny: Path) -> None:
    """Without their turns most of these fail, or have random heads: transformers swaps functions of the process."""
    first = loaded(tiny).model.state_dict()
    with ThreadPoolExecutor(4) as pool:
        bases = list(pool.map(loaded, [tiny] * 8))
    for base in [*bases, loaded(tiny)]:
        found = base.model.state_dict()
        assert found.keys() == first.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in first.items())
    assert torch.get_default_dtype() == torch.float32


def test_a_second_run_of_a_process_is_refused_and_a_later_one_is_not(tiny: Path, tmp_path: Path) -> None:
    """In both threads and with both ways to begin one; the first goes on and ends as if it were alone."""
    team = str(write_team_file(tmp_path, tiny, num_sanity_val_steps=0, limit_val_batches=0, max_steps=1))
    first, second = (make_cli(["--config", team, f"--run.name={name}"], run=False) for name in ("first", "second"))
    refused: list[str] = []

    class Beside(Callback):
        """While the first one plays, others try to begin."""

        def on_play_start(self, **_: object) -> None:
            for attempt in (
                lambda: second.trainer.fit(second.model, second.datamodule),
                lambda: make_cli(["--config", team], run=False),
                lambda: make_cli(["fit", "--config", team]),
                lambda: loaded(tiny),
            ):
                with pytest.raises(ConfigurationError) as error:
                    in_a_thread(attempt)
                refused.append(str(error.value))

    first.trainer.callbacks.append(Beside())  # type: ignore[attr-defined]
    in_a_thread(lambda: first.trainer.fit(first.model, first.datamodule))
    assert [first.trainer.global_step, second.trainer.global_step] == [1, 0]
    assert len(refused) == 4
    assert all("another thread of this process has a run" in text and "second process" in text for text in refused)
    assert not list((tmp_path / "runs" / "second").glob("checkpoints/*"))
    third = make_cli(["--config", team, "--run.name=third"], run=False)
    third.trainer.fit(third.model, third.datamodule)
    one, other = (torch.load(path, weights_only=True)["roles"] for path in tmp_path.glob("runs/*/checkpoints/*.ckpt"))
    for role, state in one.items():
        assert all(torch.equal(tensor, other[role]["adapter"][name]) for name, tensor in state["adapter"].items())


def test_a_thread_that_has_died_leaves_nothing_behind() -> None:
    thread = threading.Thread(target=begin_run)
    thread.start()
    thread.join()
    begin_run()
    in_a_thread(end_run)
    with pytest.raises(ConfigurationError, match="another thread"):
        in_a_thread(begin_run)
    end_run()
    in_a_thread(begin_run)
