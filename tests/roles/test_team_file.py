"""Team files in both shapes make the same team, and what every role has is written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgrpo_lightning.commands.config_files import compose, composed
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.commands.saved_run import cli_of
from mgrpo_lightning.commands.yaml_text import parsed
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.roles.team_file import flat, nested, roles_of
from mgrpo_lightning.viewer.sources import Source
from tests.support.team_file import write_team_file

MOST_LINES = 25
"""Of a team file for three roles of the same base, without comments."""


def text_of(content: dict[str, Any]) -> str:
    return f"--config={yaml.safe_dump(content, sort_keys=False)}"


def old(content: dict[str, Any]) -> dict[str, Any]:
    """A team file in the shape with a class for model and data."""
    classes = {"model": "mgrpo_lightning.TeamModule", "data": "mgrpo_lightning.AlignedTrajectoryDataModule"}
    named = {key: {"class_path": path, "init_args": content[key]} for key, path in classes.items() if key in content}
    return {**content, **named}


def roles(*arguments: str) -> dict[str, Any]:
    return roles_of(composed(arguments))


def test_both_shapes_are_one_file_also_mixed_with_options(tmp_path: Path) -> None:
    new = yaml.safe_load(write_team_file(tmp_path, tmp_path / "model").read_text())
    options = ["--model.init_args.roles.main.lag=1", "--data.init_args.task.init_args.x=2", "--model=TeamModule"]
    given = [compose(["fit", text_of(content), *options]) for content in (new, old(new))]
    assert [parsed(words.pop(1).removeprefix("--config=")) for words in given] == [new, new]
    assert given == [["fit", "--model.roles.main.lag=1", "--data.task.init_args.x=2"]] * 2
    changes = text_of(old({"model": {"roles": {"main": {"lag": 3}}}}))
    assert roles(text_of(new), changes) == roles(text_of(old(new)), changes)
    assert roles(text_of(new), changes)["main"]["lag"] == 3


@pytest.mark.parametrize("words", [["--model=my.Team"], ["--data.class_path=my.Data"], ["--model.class_path", "[1]"]])
def test_another_class_for_the_whole_team_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"^(model|data).class_path is .*always .*HINT: leave class_path out"):
        compose(["fit", *words])


def test_another_class_in_a_file_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^model.class_path is 'my.Team'"):
        compose([text_of({"model": {"class_path": "my.Team", "roles": {}}})])


def test_a_class_block_may_have_its_arguments_directly() -> None:
    shapes: list[dict[str, Any]] = [{"class_path": "A", "x": [{"class_path": "B", "y": 1}]}, {"class_path": "A"}]
    shapes[1]["init_args"] = {"x": [{"class_path": "B", "init_args": {"y": 1}}]}
    assert flat({"data": {"task": shapes[1]}}) == {"data": {"task": shapes[0]}}
    assert nested({"data": {"task": shapes[0]}}) == {"data": {"task": shapes[1]}}


@pytest.mark.parametrize("shape", [dict, old])
def test_the_config_of_a_run_is_read_in_both_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    content = yaml.safe_load(write_team_file(tmp_path, tmp_path / "model").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**shape(content), "ckpt_path": "of the command"}))
    (tmp_path / "journal").mkdir()
    assert Source(tmp_path).roles == content["model"]["roles"]
    model = cli_of(tmp_path, ["--model.roles.main.lag=2"]).model
    assert [role.lag for role in model.roles.values()] == [2, 0]
    assert model.roles["searcher"].tools == content["model"]["roles"]["searcher"]["tools"]


DEFAULTS: dict[str, Any] = {
    "base_model": "pocket",
    "limits": {"turns": 5, "context": 512},
    "tools": ["search", "visit"],
    "adapter": {"rank": 4},
}


def test_a_role_s_own_keys_win_over_the_defaults_and_an_empty_role_has_them_all() -> None:
    model = {"defaults": DEFAULTS, "roles": {"main": {"limits": {"turns": 9}, "tools": ["larger"]}, "searcher": None}}
    assert roles(text_of({"model": model})) == {
        "main": {**DEFAULTS, "limits": {"turns": 9, "context": 512}, "tools": ["larger"]},
        "searcher": DEFAULTS,
    }
    (word,) = compose([text_of({"model": model})])
    assert "defaults" not in yaml.safe_load(word.removeprefix("--config="))["model"]


def test_changes_and_options_reach_every_role_through_the_defaults() -> None:
    team = text_of({"model": {"defaults": DEFAULTS, "roles": {"main": {"limits": {"turns": 9}}, "searcher": None}}})
    changes = text_of({"model": {"defaults": {"limits": {"turns": 7, "calls": 2}}}})
    found = roles(team, changes, "--model.defaults.adapter.rank=8", "--model.defaults.base_model", "other")
    assert [found[role]["limits"]["turns"] for role in found] == [9, 7]
    assert {(r["limits"]["calls"], r["adapter"]["rank"], r["base_model"]) for r in found.values()} == {(2, 8, "other")}


def test_a_role_that_only_options_name_has_the_defaults_too() -> None:
    team = text_of({"model": {"defaults": DEFAULTS, "roles": {"main": {}}}})
    assert roles(team, "--model.roles.reader.lag=1")["reader"] == DEFAULTS
    assert "reader" not in roles(text_of({"model": {"roles": {"main": {}}}}), "--model.roles.reader.lag=1")


def test_references_see_the_defaults() -> None:
    model = {"defaults": {**DEFAULTS, "lag": "${model.defaults.adapter.rank}"}, "roles": {"main": {}}}
    team = text_of({"model": model, "run": {"name": "${model.roles.main.base_model}"}})
    assert roles(team)["main"]["lag"] == 4
    assert composed([team])["run"]["name"] == "pocket"


def test_defaults_that_are_no_block_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^model.defaults is 3; it must be a block of keys"):
        compose([text_of({"model": {"defaults": 3, "roles": {"main": {}}}})])


def test_a_short_class_name_is_the_same_class() -> None:
    team = text_of({"data": {"task": {"class_path": "tests.support.toy.ToyTask", "x": 1}}})
    changes = text_of({"data": {"task": {"class_path": "ToyTask", "y": 2}}})
    assert composed([team, changes])["data"]["task"] == {"class_path": "ToyTask", "x": 1, "y": 2}


def test_three_roles_of_one_base_are_a_short_file(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    path = root / "configs" / "three_roles.yaml"
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) <= MOST_LINES
    assert len(roles(f"--config={path}")) == 3
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", str(path), "--dry_run", f"--run.root={tmp_path}"])
    assert ended.value.code == 0
    assert "comparer" in capsys.readouterr().out
