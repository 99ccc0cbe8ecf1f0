"""Every config of a benchmark makes its task on top of the quickstart's team, from files at a path that is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mgrpo_lightning.commands.fit import make_cli
from tests.tasks.benchmarks.files import encrypted, write_rows
from tests.tasks.benchmarks.test_gaia import rows
from tests.tasks.benchmarks.test_multihop import HOTPOT, MUSIQUE
from tests.tasks.benchmarks.test_webwalker import LAYOUTS

KEY = sha256(b"c").digest()
ROWS: Mapping[str, tuple[str, Sequence[Mapping[str, Any]]]] = {
    "gaia": ("2023/validation/metadata.jsonl", rows(int)[:2]),
    "xbench": (
        "DeepSearch-2505.csv",
        [{"id": "1", "prompt": encrypted("?", b"c"), "answer": encrypted("!", b"c"), "canary": "c"}],
    ),
    "browsecomp": (
        "browse_comp_test_set.csv",
        [{"problem": encrypted("?", KEY), "answer": encrypted("!", KEY), "problem_topic": "Art", "canary": "c"}],
    ),
    "webwalkerqa": ("main.jsonl", [LAYOUTS["nested.jsonl"]]),
    "hotpotqa": ("dev.json", [HOTPOT]),
    "musique": ("dev.jsonl", [MUSIQUE]),
}


@pytest.mark.parametrize("name", list(ROWS))
def test_a_config_makes_its_task(root: Path, tmp_path: Path, name: str) -> None:
    file, content = ROWS[name]
    path = write_rows(tmp_path / file, content)
    configs = [f"--config={root / 'configs' / one}" for one in ("quickstart.yaml", f"benchmarks/{name}.yaml")]
    multihop = name in ("hotpotqa", "musique")
    given = ["path", "validation_path"] if multihop else ["path"]
    paths = [f"--data.task.{one}={path if multihop else tmp_path}" for one in given]
    data = make_cli([*configs, *paths, "--trainer.accelerator=cpu"], run=False).datamodule
    assert len(data.task.questions("validation")) == len(content)
    assert {"search", "visit"} <= set(data.task.tools()), "what the quickstart's searcher uses"


def test_every_config_is_tried(root: Path) -> None:
    assert {path.stem for path in (root / "configs" / "benchmarks").glob("*.yaml")} == ROWS.keys()
