"""Runs are taken to their end and not done twice; the paired test is exact."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paired import sign_flip
from benchmarks.runs import fit


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_the_paired_test_counts_all_assignments_of_signs(changes: list[int]) -> None:
    sums = [sum(signs) for signs in itertools.product(*((change, -change) for change in changes))]
    expected = sum(abs(total) >= abs(sum(changes)) for total in sums) / len(sums)
    assert sign_flip(changes) == pytest.approx(expected)


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
        *("fit", "--x", f"--run.root={run.parent}", "--run.name=run-0"),
        *(["--ckpt_path=last"] if cut_off else []),
    ]
