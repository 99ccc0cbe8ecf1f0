"""examples/quickstart.ipynb runs from top to bottom in one event loop, as in a notebook, with a shortened training."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from mgrpo_lightning import Team

FAST = {
    "data.queries_per_step": 2,
    "data.rollouts_per_query": 2,
    "data.validation.questions": 4,
    "trainer.max_steps": 1,
    "trainer.enable_progress_bar": False,
}


@pytest.mark.usefixtures("own_argv")
def test_every_cell_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    from_file = Team.from_file

    def shortened(*paths: str, settings: dict[str, Any]) -> Team:
        return from_file(*paths, settings={**settings, **FAST, "run.root": str(tmp_path)})

    monkeypatch.setattr(Team, "from_file", shortened)
    notebook = json.loads((root / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "outputs are not committed"
    names: dict[str, Any] = {}

    async def run() -> None:
        for cell in cells:
            code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if inspect.iscoroutine(result):
                await result

    asyncio.run(run())
    assert len(names["before"]) == len(names["after"]) == 8
    assert [result["step"] for result in names["validations"]] == [0, 1]
