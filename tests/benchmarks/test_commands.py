"""Every benchmark that the documentation names runs to its end, each shortened.

They run one after the other in one folder, as some read what others have written. The folder has a copy of the configs
in which every run is two small steps. Those that can record do; at the end the reports make tables of all records.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import records
from benchmarks.paper import arms
from tests.support.tiny import make_tiny_model
from tests.test_docs_commands import commands

ROOT = Path(__file__).parents[2]
SMALL_ARMS = ["--arms", "co_training", "main_only", "--seeds", "0"]
SHORTENED: dict[str, list[str]] = {
    "benchmarks.paper.arms": SMALL_ARMS,
    "benchmarks.report": [],
    "benchmarks.paper.causes": ["--record"],
    "benchmarks.paper.credit": ["--questions", "4", "--copies", "2"],
    "benchmarks.paper.crossplay": ["--questions", "4"],
    "benchmarks.speed.decoupled": ["--steps", "4", "--arms", "coupled", "decoupled", "--record"],
    "benchmarks.faults.kill": ["--kills", "1", "--schedules", "rounds", "--record"],
    "benchmarks.paper.lag": ["--seeds", "0", "--arms", "lag 0", "lag 1", "--steps", "3"],
    "benchmarks.speed.memory": ["--models", "2M", "--record"],
    "benchmarks.paper.mismatch": ["--record"],
    "benchmarks.speed.multiturn": ["--sizes", "2M", "--repeats", "1", "--record"],
    "benchmarks.pocket.build": ["--steps", "2", "--folder", "built"],
    "benchmarks.paper.quickstart": ["--seeds", "0", "1", "2", "--record"],
    "benchmarks.speed.roofline": ["--sizes", "2M", "--bases", "fp32", "--rows", "2", "--record"],
    "benchmarks.speed.scaling": ["--vary", "K", "--record"],
    "benchmarks.paper.smollm2": ["--seeds", "0", "--base", "tiny"],
    "benchmarks.speed.startup": ["--repeats", "1"],
    "benchmarks.faults.stop": ["--times", "1", "--record"],
    "benchmarks.speed.store": ["--writers", "1", "--rate", "500", "--seconds", "1", "--million", "2000", "--record"],
    "benchmarks.speed.trl": ["--sizes", "2M", "--lengths", "64+8", "--dtypes", "float32", "--repeats", "1", "--record"],
    "benchmarks.speed.viewer": ["--rollouts", "50", "--repeats", "1", "--record"],
}
"""Arguments behind those of the documents. A benchmark without a line here fails."""
STEPS = {"12": "2"}
"""Steps that a shortened run has, by those that the documents name."""
FIRST = ("benchmarks.paper.quickstart", "benchmarks.paper.arms")
"""Others read their runs."""
LAST = ("benchmarks.records", "benchmarks.report")
"""They read the records of all others."""


def documented() -> list[list[str]]:
    """The commands in the order in which they can run."""
    named = [words for words in commands("python -m ") if words[0].startswith("benchmarks.") and "--help" not in words]

    def place(words: list[str]) -> tuple[bool, ...]:
        return words[0] in LAST, words[0] not in FIRST, "--arms" not in words or "clean" in words

    return sorted(named, key=place)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: as the repository, with small configs."""
    path = tmp_path_factory.mktemp("repository")
    for name in ("benchmarks", "tests", "examples"):
        (path / name).symlink_to(ROOT / name)
    (path / "docs").mkdir()
    shutil.copytree(ROOT / "configs", path / "configs")
    for config in (path / "configs").rglob("*.yaml"):
        config.write_text(yaml.safe_dump(smaller(yaml.safe_load(config.read_text("utf-8")))), "utf-8")
    make_tiny_model(path / "tiny")
    return path


def smaller(config: Any) -> Any:
    """A config file whose runs, if it says how long they are, take seconds."""
    bounds = {"queries_per_step": 2, "rollouts_per_query": 2, "questions": 4, "max_steps": 2, "val_check_interval": 2}
    if not isinstance(config, dict):
        return config
    return {
        key: min(value, bounds[key]) if key in bounds and isinstance(value, int) else smaller(value)
        for key, value in config.items()
    }


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Run a module with arguments, in the folder."""
    evaluation = ("--data.validation.split=test", "--data.validation.questions=4", "--trainer.val_check_interval=1")
    monkeypatch.setattr(records, "FILE", folder / "records.jsonl.xz")
    kept = ("--checkpoint.save_top_k=-1", "--checkpoint.every_n_train_steps=1")
    monkeypatch.setattr(arms, "EVALUATION", (*evaluation, *kept))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    def called(words: list[str]) -> None:
        monkeypatch.setattr("sys.argv", words)
        importlib.import_module(words[0]).main()

    return called


def test_every_documented_benchmark_is_here() -> None:
    assert {words[0] for words in documented()} == set(SHORTENED)


@pytest.mark.slow
@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_a_documented_benchmark_runs_to_its_end(words: list[str], run: Callable[[list[str]], None]) -> None:
    if words[0] == "benchmarks.speed.viewer":
        pytest.importorskip("playwright", reason="only `make test-browser` installs it")
    run([*(STEPS.get(word, word) for word in words), *SHORTENED[words[0]]])
