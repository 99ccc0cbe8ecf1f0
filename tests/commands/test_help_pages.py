"""``mgrpo --help`` and the page of each command: static, short, and in agreement with the commands' parsers."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from lightning.pytorch.cli import LightningCLI

from mgrpo_lightning.commands import main as program
from mgrpo_lightning.commands.fit import MgrpoCLI, make_cli
from mgrpo_lightning.commands.help_pages import OVERVIEW, commands, page
from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
from mgrpo_lightning.process.stopping import Stopping
from mgrpo_lightning.ranges import hints_of
from mgrpo_lightning.roles.config import RoleConfig

WITH_TEAM_FILE = (*LightningCLI.subcommands(), "doctor")
"""Commands with the keys of a team file as options; the others have a small parser of their own."""
ARGUMENTS = [name for name in commands() if name not in WITH_TEAM_FILE]
BY_PAGES = ("--help", "--help_all")
"""Options that the parsers do not know, because they are answered before."""
SHORT = {"--role": "run.role"}
"""Options that are short for a key (``commands/options.py``)."""


def run(*words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stopping, "start", lambda stopping: None)  # else this process gets a command's signal handlers
    monkeypatch.setattr(sys, "argv", ["mgrpo", *words])
    program.main()


def options(name: str) -> set[str]:
    """The options that a page names."""
    return set(re.findall(r"(?<![\w-])--[A-Za-z][\w.-]*", page(name)))


def examples(name: str) -> list[list[str]]:
    """The arguments of each example of a page, without the command."""
    text = page(name).partition("\nExample: ")[2].replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(rf"^  mgrpo {name} (.+)", text, re.MULTILINE)]


class _Made(Exception):
    """A parser that a command has made, instead of the command's work."""


def parser_of(name: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser of a command that has no team file."""

    def stop(parser: argparse.ArgumentParser, *_: Any) -> None:
        raise _Made(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    with pytest.raises(_Made) as made:
        run(name, monkeypatch=monkeypatch)
    found = made.value.args[0]
    assert isinstance(found, argparse.ArgumentParser)
    return found


def keys_of_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every key that a command with a team file has, also those of blocks inside."""

    def stop(cli: MgrpoCLI, *_: Any) -> None:
        raise _Made(cli._subcommand_parsers[name if name != "doctor" else "fit"])

    monkeypatch.setattr(MgrpoCLI, "parse_arguments", stop)
    monkeypatch.setattr(sys, "argv", ["mgrpo"])
    with pytest.raises(_Made) as made:
        make_cli([])
    keys = {option.removeprefix("--") for action in made.value.args[0]._actions for option in action.option_strings}
    return {*keys, *inside(RoleConfig, "model.roles.main"), *inside(AlignedTrajectoryDataModule, "data")}


def inside(of: Any, name: str) -> Iterator[str]:
    for key, hint in hints_of(of).items():
        yield f"{name}.{key}"
        for one in (*typing.get_args(hint), hint):
            if isinstance(one, type) and dataclasses.is_dataclass(one):
                yield from inside(one, f"{name}.{key}")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=str)
def test_the_overview_names_every_command(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*words, monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert shown == page(OVERVIEW) + "\n"
    assert sorted(re.findall(r"^  (\w[\w-]*)  +\w", shown, re.MULTILINE)) == commands()


def test_every_lightning_command_has_a_page() -> None:
    assert set(WITH_TEAM_FILE) < set(commands())


@pytest.mark.parametrize("name", commands())
def test_a_page_says_what_for_and_gives_an_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(name, "--config", "team.yaml", "--help", monkeypatch=monkeypatch)
    shown = capsys.readouterr().out
    assert shown == page(name) + "\n"
    assert re.match(rf"mgrpo {name}: \w.+\n\nUsage: mgrpo {name} ", shown)
    assert re.search(rf"^Example: .+\n  mgrpo {name} ", shown, re.MULTILINE)


@pytest.mark.parametrize("name", [OVERVIEW, *commands()])
def test_a_page_fits_on_a_screen(name: str) -> None:
    lines = page(name).splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_small_parser_and_its_page_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parser_of(name, monkeypatch)
    actions = parser._actions
    known = {option for action in actions for option in action.option_strings if option.startswith("--")}
    assert known - set(BY_PAGES) <= options(name), "an option is not on the page"
    for action in actions:
        if not action.option_strings:
            assert re.search(rf"\b{action.dest.rstrip('s').upper()}\b", page(name)), f"{action.dest} is not on the page"
    monkeypatch.undo()
    for words in examples(name):
        _, others = parser.parse_known_args(words)
        assert not others or "option of mgrpo fit" in page(name)
    more = options(name) - known - set(BY_PAGES)
    if "option of mgrpo fit" in page(name):
        more -= {f"--{key}" for key in keys_of_fit("fit", monkeypatch)} | set(SHORT)
    assert not more, "the page names options that do not exist"


@pytest.mark.parametrize("name", WITH_TEAM_FILE)
def test_the_options_on_a_page_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = keys_of_fit(name, monkeypatch)
    named = {SHORT.get(option, option.removeprefix("--")) for option in options(name) - set(BY_PAGES) - {"--KEY"}}
    assert not named - keys


@pytest.mark.parametrize("name", LightningCLI.subcommands())
def test_the_examples_of_a_page_compose(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examples(name)
    for words in examples(name):
        with pytest.raises(SystemExit) as ended:
            run(name, *words, "--print_config", monkeypatch=monkeypatch)
        assert ended.value.code == 0
        assert "base_model: pocket" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fti", "--config", "team.yaml"], "'fti' is not a command. HINT: did you mean fit? `mgrpo --help` lists"),
        (["Validate"], "'Validate' is not a command. HINT: did you mean validate?"),
        (["frobnicate", "--help"], "'frobnicate' is not a command. HINT: `mgrpo --help` lists all commands."),
        (["--config", "team.yaml"], "no command is given. HINT: give one of ask, "),
    ],
)
def test_a_mistyped_command_is_one_line(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*words, monkeypatch=monkeypatch)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"mgrpo: error: {told}")


def test_help_needs_neither_torch_nor_a_parser() -> None:
    code = """if True:
        import sys
        from mgrpo_lightning.commands.main import main
        main()
        print({"torch", "lightning", "jsonargparse", "yaml", "rich"} & sys.modules.keys())
    """
    for words in (["--help"], *([name, "--help"] for name in commands())):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "set()"


def test_the_full_list_stays_behind_an_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("fit", "--help_all", monkeypatch=monkeypatch)
    assert ended.value.code in (0, None)
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--trainer.max_steps", "--model.roles", "--data.queries_per_step"))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--model.roles.help"], "--model.roles.ROLE.optimizer.lr LR"),
        (["--data.task.help", "mgrpo_lightning.tasks.Factbook"], "--data.task.hops"),
        (["--trainer.logger.help", "CSVLogger"], "--trainer.logger.save_dir"),
    ],
)
def test_help_of_a_part_works(
    words: list[str], shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("fit", *words, monkeypatch=monkeypatch)
    assert ended.value.code in (0, None)
    assert shown in capsys.readouterr().out


def test_the_help_of_roles_names_options_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("fit", "--model.roles.help", monkeypatch=monkeypatch)
    named = set(re.findall(r"--model\.roles\.[\w.+]+", capsys.readouterr().out)) - {"--model.roles.help"}
    assert named - {f"--{key}" for key in inside(RoleConfig, "model.roles.ROLE")} == set()
