"""results.json: each command has its own entries, and none is lost where several end at the same moment."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mgrpo_lightning.callbacks import results
from mgrpo_lightning.callbacks.results import Results
from mgrpo_lightning.errors import DataError
from tests.callbacks.fakes import make_record


def close(folder: Path, stage: str, *records: dict[str, Any]) -> None:
    """The end of a command."""
    trainer = SimpleNamespace(
        is_global_zero=True, default_root_dir=folder, global_step=4, loggers=[], callbacks=[], max_steps=4
    )
    module = SimpleNamespace(validation_results=list(records), roles={})
    Results().teardown(trainer, module, stage)  # type: ignore[arg-type]


def results_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "results.json").read_text(encoding="utf-8")))


def test_commands_that_end_at_the_same_moment_lose_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = results._read

    def slowly(path: Path) -> dict[str, Any]:
        found = read(path)
        time.sleep(0.05)  # for the others to have read the same
        return found

    monkeypatch.setattr(results, "_read", slowly)
    commands = [("fit", make_record(0, 0.2)), ("validate", make_record(4, 0.5)), ("test", make_record(4, 0.7))]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda command: close(tmp_path, *command), commands))
    found = results_of(tmp_path)
    assert [found[name]["exact_match"] for name in ("before", "validate", "test")] == [0.2, 0.5, 0.7]


def test_a_fit_replaces_its_own_entries_and_keeps_the_others(tmp_path: Path) -> None:
    close(tmp_path, "fit", make_record(0, 0.2), make_record(4, 0.4))
    close(tmp_path, "validate", make_record(4, 0.5))
    close(tmp_path, "fit", make_record(4, 0.6))
    found = results_of(tmp_path)
    assert "before" not in found, "an entry of the earlier fit"
    assert found["after"]["exact_match"] == 0.6
    assert found["validate"]["exact_match"] == 0.5


@pytest.mark.parametrize("content", ["{torn", "[]", "5"])
def test_a_damaged_file_ends_no_fit_and_is_told_by_a_validation(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=r"results.json is not JSON.*HINT: move it away"):
        close(tmp_path, "validate", make_record(4, 0.5))
    assert (tmp_path / "results.json").read_text() == content
    close(tmp_path, "fit", make_record(4, 0.6))
    assert results_of(tmp_path)["after"]["exact_match"] == 0.6
