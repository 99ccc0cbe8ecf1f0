"""Files of predictions: every question in the task's format, a file a repeat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mgrpo_lightning.callbacks.predictions import write_predictions
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tasks.benchmarks import Gaia, HotpotQA, MuSiQue
from tests.callbacks.fakes import make_groups
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model
from tests.support.toy import ToyTask
from tests.tasks.benchmarks.files import write_rows
from tests.tasks.benchmarks.test_multihop import HOTPOT, MUSIQUE


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_several_repeats_are_several_files(tmp_path: Path) -> None:
    groups = make_groups([[0.0, 1.0], [1.0, 1.0]])
    paths = write_predictions(tmp_path / "new", groups, ToyTask(), suffix="-rank-1")
    assert [path.name for path in paths] == ["predictions-0-rank-1.jsonl", "predictions-1-rank-1.jsonl"]
    assert [[line["id"] for line in lines(path)] for path in paths] == [["q0", "q1"]] * 2


def test_gaia_s_leaderboard_gets_its_own_format(tmp_path: Path) -> None:
    row = {"task_id": "t", "Question": "Which?", "Level": 1, "Final answer": "x", "file_name": ""}
    write_rows(tmp_path / "2023/validation/metadata.jsonl", [row])
    task: Task = Gaia(str(tmp_path))
    (group,) = make_groups([[1.0]])
    (path,) = write_predictions(tmp_path, [group], task)
    (line,) = lines(path)
    assert set(line) == {"task_id", "model_answer", "reasoning_trace"}
    assert line["model_answer"] == (group.rollouts[0].main.answer or "")


def test_hotpotqa_s_and_2wikimultihopqa_s_scripts_get_one_object(tmp_path: Path) -> None:
    task = HotpotQA(test_path=str(write_rows(tmp_path / "a.json", [HOTPOT])))
    groups = make_groups([[1.0], [1.0]])
    groups[1].rollouts[0].main.answer = None
    (path,) = write_predictions(tmp_path, groups, task)
    assert path.name == "predictions.json"
    nothing: dict[str, list[str]] = {"q0": [], "q1": []}
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written == {"answer": {"q0": "Mont Blanc", "q1": ""}, "sp": nothing, "evidence": nothing}


def test_musique_s_script_gets_its_own_format_in_the_order_of_the_file(tmp_path: Path) -> None:
    task = MuSiQue(test_path=str(write_rows(tmp_path / "a.jsonl", [MUSIQUE])))
    groups = make_groups([[1.0], [1.0]])
    groups[0].rollouts[0].main.answer = None
    (path,) = write_predictions(tmp_path, groups, task)
    rest = {"predicted_support_idxs": [], "predicted_answerable": True}
    assert path.name == "predictions.jsonl"
    assert lines(path) == [
        {"id": "q0", "predicted_answer": "", **rest},
        {"id": "q1", "predicted_answer": "Mont Blanc", **rest},
    ]


@pytest.mark.parametrize("repeats", [1, 3])
def test_validate_writes_them_and_fit_does_not(tmp_path: Path, repeats: int) -> None:
    team = write_team_file(tmp_path, make_tiny_model(tmp_path / "model"), max_steps=1)
    run = tmp_path / "runs/toy"
    main(["fit", "--config", str(team)])
    assert not list(run.glob("predictions*"))
    settings = [f"--data.validation.repeats={repeats}", "--data.validation.temperature=1.0"]
    main(["validate", "--config", str(team), "--ckpt_path=last", *settings])
    found = sorted(run.glob("predictions*.jsonl"))
    assert len(found) == repeats
    assert all(len(lines(path)) == 4 for path in found)
    record = json.loads((run / "results.json").read_text())["validate"]
    assert (record["questions"], record["repeats"]) == (4, repeats)
    assert (f"pass@{repeats}" in record) == (repeats > 1)
