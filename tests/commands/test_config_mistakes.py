"""A mistake in a team file or on the command line is one sentence with the full key, whatever jsonargparse prints."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.ranges import hints_of
from mgrpo_lightning.roles.config import RoleConfig
from tests.support.team_file import write_team_file

PLACE = "model.roles.searcher"
LONGEST = 600
"""Characters of a whole error."""


def keys(of: Any, name: str = "") -> Iterator[tuple[str, bool]]:
    """Every key of a block and of the blocks inside, and whether it is a block itself."""
    for key, hint in hints_of(of).items():
        inside = next(
            (one for one in (*typing.get_args(hint), hint) if isinstance(one, type) and dataclasses.is_dataclass(one)),
            None,
        )
        yield f"{name}.{key}", inside is not None
        if inside is not None:
            yield from keys(inside, f"{name}.{key}")


KEYS = list(keys(RoleConfig))
IN_THE_SUITE = (".limits",)


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    return write_team_file(tmp_path, tmp_path / "no_model")


def told(team: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], *options: str) -> str:
    """What is printed of a mistake in a file of changes, or in options."""
    path = team.with_name("changes.yaml")
    path.write_text(yaml.safe_dump(changes))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", str(team), "--config", str(path), *options, "--dry_run"])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("mgrpo: error: ")
    assert error.count("HINT: ") == 1
    assert len(error) < LONGEST
    return error


def changed(key: str, value: object, *, role: str = "searcher") -> dict[str, Any]:
    for name in reversed(f"model.roles.{role}{key}".split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    ("key", "block"),
    [pytest.param(*one, marks=[] if one[0] in IN_THE_SUITE else pytest.mark.slow) for one in KEYS],
)
def test_a_wrong_key_or_value_is_named_with_its_role(
    team: Path, capsys: pytest.CaptureFixture[str], key: str, block: bool
) -> None:
    error = told(team, capsys, changed(f"{key}_", 1))
    assert f"{PLACE}{key}_ is not a key" in error
    assert f"did you mean {key.rpartition('.')[2]}?" in error
    if block:
        inside = told(team, capsys, changed(key, {"no_such_key": 1}))
        assert f"{PLACE}{key}" in inside
    wrong = told(team, capsys, changed(key, {"of": [{"no": "type"}]}))
    assert f"{PLACE}{key}" in wrong or "lacks url and model" in wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.roles.main.limits.turns=many"], "model.roles.main.limits.turns is many; it must be an integer"),
        (["--model.roles.main.limit.turns=3"], "model.roles.main.limit is not a key of a team file. HINT: did you"),
        (["--model.roles.main.objective.kind=ppo"], "kind is ppo; it must be one of 'mgrpo', 'supervised'"),
        (["--model.roles.main.endpoint.backoff=0"], "model.roles.main.endpoint lacks url and model. HINT: give url"),
        (["--model.roles.main.adapter=3"], "model.roles.main.adapter is 3; it must be a block of keys"),
        (["--data.task=Factbok"], "data.task is Factbok; it must be the dotted path of a class"),
        (["--data.task=mgrpo_lightning.tasks.Factbok"], "data.task: module 'mgrpo_lightning.tasks' has no attribute"),
        (["--trainer.max_stps=4"], "trainer.max_stps is not a key of a team file. HINT: did you mean max_steps?"),
        (["--frobnicate"], "frobnicate is not a key of a team file"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(
    team: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert message in told(team, capsys, {}, *options)


def test_a_value_that_several_roles_set_is_that_of_the_one_where_it_is_wrong(
    team: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = told(team, capsys, changed(".limits.turns", "many", role="main"))
    assert "model.roles.main.limits.turns is many" in error
