"""The README is a promise: its commands run, its examples are read, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgrpo_lightning import Team
from mgrpo_lightning.commands.main import main as program
from mgrpo_lightning.commands.run_command import main

SMALL = ["--config", "configs/debug/fast.yaml", "--data.validation.questions=2"]


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def mgrpo(monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path) -> Callable[..., None]:
    """Run a command line in the repository, its runs elsewhere."""
    monkeypatch.chdir(root)

    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["mgrpo"])
        main([*arguments, *([] if arguments[0] == "replay" else [f"--run.root={tmp_path}"])])

    return run


def blocks(readme: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)


def commands(readme: str, program: str) -> list[list[str]]:
    """Argument lists of the indented lines that start with a program, comments left out."""
    lines = re.findall(rf"^    ({program} .*)$", readme, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_commands_run_one_after_the_other(
    readme: str,
    mgrpo: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given = commands(readme, "mgrpo")
    names = [
        "doctor",
        "fit",
        "fit",
        "validate",
        "ask",
        "serve",
        "replay",
        "view",
        "launch",
        "store",
        "fit",
        "fit",
        "launch",
    ]
    assert [arguments[0] for arguments in given] == names
    doctor, fit, resume, validate, (ask, asked, question), (_, served), (replay, run), (view, viewed), *_ = given
    mgrpo(*doctor)
    mgrpo(*fit, *SMALL, "--run.name=readme")
    assert run == viewed == asked == served == "runs/quickstart"
    mgrpo(replay, str(tmp_path / "readme"))
    monkeypatch.setattr("sys.argv", ["mgrpo", view, str(tmp_path / "readme"), "--out", str(tmp_path / "page")])
    program()
    assert (tmp_path / "page" / "index.html").is_file()
    for number, arguments in enumerate((resume, validate), 3):
        mgrpo(*arguments, *SMALL, f"--trainer.max_steps={number}", "--run.name=readme")
    main([ask, str(tmp_path / "readme"), question])
    assert "Lima\n" in capfd.readouterr().out


def test_the_python_lines_run(readme: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the adapters that the package ships; the run folder that the lines name is a fit's."""
    monkeypatch.chdir(root)
    team = Team.from_file("configs/quickstart.yaml")
    monkeypatch.setattr(Team, "from_run", lambda folder: team)
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    printed: list[object] = []
    with team:
        exec(blocks(readme, "python")[0], {"print": printed.append})
    assert printed == ["Lima"]


def test_the_commands_for_roles_of_their_own_run(
    readme: str, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, launch, (store, run), main, searcher, _ = commands(readme, "mgrpo")
    assert Path(run).name == yaml.safe_load((root / launch[-1]).read_text(encoding="utf-8"))["run"]["name"]
    for role, own in {"main": main, "searcher": searcher}.items():
        assert own == ["fit", *launch[1:], "--role", role], "what launch runs for each role"
    monkeypatch.chdir(root)
    for arguments in (
        [*launch, *SMALL, f"--run.root={tmp_path}", "--run.name=decoupled"],
        [store, str(tmp_path / "decoupled")],
    ):
        monkeypatch.setattr("sys.argv", ["mgrpo", *arguments])
        program()
    assert "all files are complete" in capfd.readouterr().out


def test_the_command_for_a_cluster_writes_a_job(
    readme: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["mgrpo", *commands(readme, "mgrpo")[-1], "--write_only", f"--run.root={tmp_path}"])
    program()
    script = (tmp_path / "quickstart" / "job.sbatch").read_text()
    assert "role main 0 --exact --nodes=1" in script
    assert "role searcher 1" in script


def test_the_make_targets_exist(readme: str, root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = {arguments[0] for arguments in commands(readme, "make")} | set(re.findall(r"`make ([a-z0-9-]+)`", readme))
    assert {"quickstart", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_team_file_is_one(readme: str, mgrpo: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "team.yaml"
    path.write_text(next(block for block in blocks(readme, "yaml") if block.startswith("run:")), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        mgrpo("fit", "--config", str(path), "--print_config")
    assert stopped.value.code == 0


def test_the_team_file_is_a_part_of_the_quickstart(readme: str, root: Path) -> None:
    shown = yaml.safe_load(next(block for block in blocks(readme, "yaml") if block.startswith("run:")))
    whole = yaml.safe_load((root / "configs" / "quickstart.yaml").read_text(encoding="utf-8"))
    shown["data"]["task"]["class_path"] = f"mgrpo_lightning.tasks.{shown['data']['task']['class_path']}"
    assert [key for key in leaves(shown) if leaves(shown)[key] != leaves(whole).get(key)] == []


def leaves(tree: dict[str, Any], place: str = "") -> dict[str, object]:
    """Values of nested blocks by dotted key."""
    found: dict[str, object] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{place}{key}.") if isinstance(value, dict) else {f"{place}{key}": value}
    return found


def test_links_lead_somewhere(readme: str, root: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in target]
    assert targets
    assert [target for target in targets if not (root / target).exists()] == []
