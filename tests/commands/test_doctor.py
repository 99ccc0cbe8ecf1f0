"""``mgrpo doctor``: good lines for a team that works here, a bad one with its fix for each thing that may be wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mgrpo_lightning.commands import doctor
from mgrpo_lightning.commands.run_command import main
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model

pytestmark = pytest.mark.usefixtures("own_argv")


def test_a_team_that_works_gets_good_lines_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    team = write_team_file(tmp_path, make_tiny_model(tmp_path / "tiny"))
    main(["doctor", "--config", str(team)])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok  ") for line in lines), lines
    mismatch = ("searcher: sampler against trainer:", "main: sampler against trainer at limits.context")
    for check in ("run folder", "memory", "main: chat template", "gradients", *mismatch):
        assert any(check in line for line in lines), check
    assert not list(tmp_path.glob("runs/*"))


def test_a_base_that_is_not_there_is_a_bad_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    team = write_team_file(tmp_path, tmp_path / "nowhere")
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", "--config", str(team)])
    assert exit_.value.code == 1
    assert "bad bases: base_model" in capsys.readouterr().out


def test_what_does_not_fit_is_named_with_what_would_help() -> None:
    line = doctor.memory_line(10**18, torch.device("cpu"))
    assert not line.good
    assert "GiB planned" in line.found
    assert "gradient_checkpointing" in line.fix
    assert doctor.memory_line(10**6, torch.device("cpu")).good


def test_a_filesystem_without_exclusive_creation_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.folder_line(tmp_path / "new").good
    opened = os.open

    def careless(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        return opened(path, flags & ~os.O_EXCL, *rest, **options)

    monkeypatch.setattr(os, "open", careless)
    line = doctor.folder_line(tmp_path)
    assert not line.good
    assert "run.root" in line.fix
