"""Runs are taken to their end and not done twice."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from pathlib import Path

import pytest

from benchmarks import runs
from benchmarks.runs import fit, side_by_side


@pytest.mark.parametrize("cut_off", [False, True])
def test_what_was_cut_off_goes_on(cut_off: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda words, check: asked.append(words))
    run = tmp_path / "run-0"
    run.mkdir()
    (run / "results.json").write_text(json.dumps({"after": {}}), encoding="utf-8")
    fit(["--x"], run)
    assert asked == [], "what is finished is not run again"
    (run / "results.json").write_text("{}", encoding="utf-8")
    if cut_off:
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "step=000003.ckpt").touch()
    fit(["--x"], run)
    (words,) = asked
    assert words[3:] == [
        *("fit", "--x", *(["--ckpt_path=last"] if cut_off else [])),
        *(f"--run.root={run.parent}", "--run.name=run-0"),
    ]


def test_a_test_of_a_fitted_run_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    results = tmp_path / "run" / "results.json"
    results.parent.mkdir()
    results.write_text(json.dumps({"after": {}}), encoding="utf-8")

    def run(words: list[str], check: bool) -> None:
        asked.append(words[3])
        results.write_text(json.dumps({"after": {}, "test": {"exact_match": 0.5}}), encoding="utf-8")

    monkeypatch.setattr(subprocess, "run", run)
    assert [runs.tested([], results.parent) for _ in range(2)] == [{"exact_match": 0.5}] * 2
    assert asked == ["test"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_several_need_is_run_once(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(words: list[str], **options: object) -> None:
        folder = tmp_path / words[-1].removeprefix("--run.name=")
        asked.append(folder.name)
        assert ("stdout" in options) is (jobs > 1), "the words of runs beside each other would be mixed"
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps({"after": {}}), encoding="utf-8")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    side_by_side([partial(fit, [], tmp_path / name) for name in ("a", "b", "a", "c", "b", "a")], jobs)
    assert sorted(asked) == ["a", "b", "c"]


def test_a_failure_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: 1 / 0, lambda: 1], 2)
