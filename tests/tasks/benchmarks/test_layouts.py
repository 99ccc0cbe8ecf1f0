"""Every benchmark's loader reads files of its own layout and refuses those of all others, by name."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.tasks import Judge, Task, benchmarks
from tests.tasks.benchmarks.files import encrypted, write_rows
from tests.tasks.benchmarks.test_gaia import rows as gaia_rows
from tests.tasks.benchmarks.test_multihop import AS_TEXT, HOTPOT, HUB, MUSIQUE
from tests.tasks.benchmarks.test_webwalker import LAYOUTS

SEALED = {key: encrypted("text", b"c") for key in ("prompt", "problem", "answer", "reference_steps")}
FILES: dict[str, dict[str, Any]] = {
    "HotpotQA": {"hotpot.json": HOTPOT, "hub.parquet": HUB, "2wiki.jsonl": {**AS_TEXT, "evidences": []}},
    "MuSiQue": {"musique.jsonl": MUSIQUE},
    "Gaia": {"metadata.jsonl": gaia_rows(int)[0], "metadata.parquet": gaia_rows(str)[0]},
    "XBench": {"DeepSearch.csv": {"id": "1", **SEALED, "canary": "c"}},
    "BrowseComp": {"browse_comp_test_set.csv": {**SEALED, "canary": "c", "problem_topic": "Art"}},
    "WebWalkerQA": dict(LAYOUTS),
}
del FILES["XBench"]["DeepSearch.csv"]["problem"], FILES["BrowseComp"]["browse_comp_test_set.csv"]["prompt"]


def load(name: str, path: Path) -> Task:
    arguments: dict[str, Any] = {"judge": Judge("http://127.0.0.1:9/v1", "m")} if name == "WebWalkerQA" else {}
    loaded: Task = getattr(benchmarks, name)(str(path), **arguments)
    return loaded


def test_there_is_a_file_of_every_benchmark() -> None:
    assert set(FILES) == set(benchmarks.__all__)


@pytest.mark.parametrize(("loader", "other"), list(itertools.permutations(FILES, 2)))
def test_a_file_of_another_benchmark_is_refused_by_name(tmp_path: Path, loader: str, other: str) -> None:
    for name, row in FILES[other].items():
        path = write_rows(tmp_path / name, [row])
        with pytest.raises(DataError, match=rf"(?i){name} is not a file of {loader[:4]}.*: row 1 has no '.*HINT"):
            load(loader, path)


@pytest.mark.parametrize("loader", sorted(set(FILES) - {"BrowseComp"}))
def test_its_own_files_are_read(tmp_path: Path, loader: str) -> None:
    for name, row in FILES[loader].items():
        load(loader, write_rows(tmp_path / name, [row]))


def test_one_row_of_another_layout_is_found(tmp_path: Path) -> None:
    rows = [HOTPOT, {**HOTPOT, "_id": "h2"}, {key: MUSIQUE[key] for key in ("id", "question", "answer", "paragraphs")}]
    with pytest.raises(DataError, match="row 3 has no 'context'"):
        benchmarks.HotpotQA(str(write_rows(tmp_path / "mixed.jsonl", rows)))
