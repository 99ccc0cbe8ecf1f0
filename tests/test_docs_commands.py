"""Every command that the documentation gives is read by the program it is for; README's run whole in test_readme.

Of a training or an evaluation, the team file is composed and its keys and values are checked; of a benchmark, the
arguments are parsed: the work itself takes minutes to hours.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from mgrpo_lightning.commands.run_command import main

ROOT = Path(__file__).parents[1]
COMPOSED = ("fit", "validate", "test", "predict")
ELSEWHERE = {
    "doctor": "test_readme and test_doctor",
    "replay": "test_readme and test_replay",
    "view": "test_readme and tests/viewer",
    "store": "test_readme and tests/store",
    "launch": "test_readme and test_launch",
    "ask": "test_readme and test_ask",
    "serve": "tests/serving",
    "export": "test_export",
    "export-base": "test_export",
}
"""Commands that need a run or a cluster, and the tests that have one."""
PLACEHOLDERS = {"TEAM": "configs/quickstart.yaml", "PATH": "."}


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(program: str) -> list[list[str]]:
    """Arguments of each command once: of an indented line, or of words between backticks, with more than a name."""
    found: list[list[str]] = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for indented, quoted in re.findall(rf"^ {{4}}{program}(.+)$|`{program}([^`]+)`", text, re.MULTILINE):
            words = [PLACEHOLDERS.get(word, word) for word in shlex.split(indented or quoted, comments=True)]
            if words not in found:
                found.append(words)
    return found


def composed() -> list[list[str]]:
    left_out = {
        "...",
        "--help",
        "--help_all",
        "--model.roles.help",
    }  # help is tested in tests/commands/test_help_pages.py
    return [words for words in commands("mgrpo ") if words[0] in COMPOSED and not left_out & set(words)]


@pytest.mark.parametrize("arguments", composed(), ids=" ".join)
def test_a_command_composes(arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    words = [word for word in arguments if word not in ("--dry_run", "--print_config")]
    if not any(word.startswith("--config") for word in words):
        words += ["--config", PLACEHOLDERS["TEAM"]]
    with pytest.raises(SystemExit) as stopped:
        main([*words, f"--run.root={tmp_path}", "--print_config"])
    assert stopped.value.code == 0


def test_every_other_command_has_its_tests() -> None:
    named = {words[0] for words in commands("mgrpo ") if "--help" not in words}
    assert named - set(COMPOSED) == set(ELSEWHERE)


def modules() -> list[list[str]]:
    """What generates a page has no arguments, and its test is beside it."""
    return [words for words in commands("python -m ") if not words[0].startswith("tests.")]


@pytest.mark.parametrize("arguments", modules(), ids=" ".join)
def test_the_arguments_of_a_module_are_read(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, *words = arguments
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser) -> None:
        parse(parser)
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.setattr("sys.argv", [module, *words])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(module).main()
    assert stopped.value.code == 0
