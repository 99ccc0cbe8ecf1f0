"""Config files merge key by key, and what is wrong in one is named with its place."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from mgrpo_lightning.commands.config_files import compose, composed
from mgrpo_lightning.errors import ConfigurationError


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_changes_name_one_role_and_leave_the_others(tmp_path: Path) -> None:
    team = write(tmp_path, "team.yaml", "roles: {main: {lr: 1.0, calls: [a, b]}, searcher: {lr: 2.0}}")
    changes = write(tmp_path, "changes.yaml", "roles: {main: {calls: [c]}}\nrun: {name: x}")
    merged = compose(["fit", "--config", team, f"--config={changes}", "--run.seed=3"])
    assert merged[0] == "fit"
    assert merged[2:] == ["--run.seed=3"]
    assert yaml.safe_load(merged[1].removeprefix("--config=")) == {
        "roles": {"main": {"lr": 1.0, "calls": ["c"]}, "searcher": {"lr": 2.0}},
        "run": {"name": "x"},
    }


def test_a_star_stands_for_every_role_that_is_there(tmp_path: Path) -> None:
    team = write(tmp_path, "team.yaml", "roles: {boss: {lr: 1.0, path: a}, reader: {lr: 2.0}}")
    changes = write(tmp_path, "changes.yaml", 'roles: {"*": {lr: 3.0, path: null}, reader: {lr: 4.0}}')
    assert composed(["--config", team, "--config", changes])["roles"] == {
        "boss": {"lr": 3.0, "path": None},
        "reader": {"lr": 4.0, "path": None},
    }


def test_the_warm_start_works_for_whatever_roles_there_are(tmp_path: Path) -> None:
    roles = {name: {"base_model": "pocket"} for name in ("boss", "reader", "critic")}
    team = write(tmp_path, "team.yaml", yaml.safe_dump({"model": {"roles": roles}}, sort_keys=False))
    merged = composed(["--config", team, "--config", "configs/warm_start.yaml"])["model"]["roles"]
    assert list(merged) == ["boss", "reader", "critic"]
    assert {role["objective"]["kind"] for role in merged.values()} == {"supervised"}


def test_another_class_does_not_inherit_arguments(tmp_path: Path) -> None:
    team = write(tmp_path, "team.yaml", "data: {task: {class_path: A, init_args: {x: 1, y: 2}}, k: 8}")
    same = write(tmp_path, "same.yaml", "data: {task: {class_path: A, init_args: {x: 3}}}")
    bare = write(tmp_path, "bare.yaml", "data: {task: {init_args: {y: 4}}}")
    other = write(tmp_path, "other.yaml", "data: {task: {class_path: B, init_args: {z: 5}}}")

    def task(*paths: str) -> object:
        argument = compose([f"--config={path}" for path in (team, *paths)])[0]
        data = yaml.safe_load(argument.removeprefix("--config="))["data"]
        assert data["k"] == 8
        return data["task"]

    assert task(same, bare) == {"class_path": "A", "init_args": {"x": 3, "y": 4}}
    assert task(other, bare) == {"class_path": "B", "init_args": {"z": 5, "y": 4}}


OPTIONS = ["--trainer.max_steps=2", "--data.task.path=null", "--run.name", "x"]


def given(arguments: Sequence[str]) -> tuple[list[str], dict[str, object]]:
    """The composed command line without its file, and what that file holds."""
    composed = compose(arguments)
    (config,) = [word for word in composed if word.startswith("--config=")]
    return [word for word in composed if word != config], yaml.safe_load(config.removeprefix("--config="))


@pytest.mark.parametrize("subcommand", [[], ["fit"]])
def test_options_win_over_files_in_any_order(tmp_path: Path, subcommand: list[str]) -> None:
    one = write(tmp_path, "one.yaml", "trainer: {max_steps: 1}\ndata: {task: {class_path: A, init_args: {path: p}}}")
    two = write(tmp_path, "two.yaml", "trainer: {max_steps: 5}\nmodel: {lag: 1}")
    words = [[option] for option in OPTIONS[:2]] + [OPTIONS[2:], ["--config", one], [f"--config={two}"]]
    expected = {
        "trainer": {"max_steps": 5},
        "data": {"task": {"class_path": "A", "init_args": {"path": None}}},
        "model": {"lag": 1},
    }
    for order in itertools.permutations(range(5)):
        if order.index(3) < order.index(4):
            rest, content = given([*subcommand, *(word for i in order for word in words[i])])
            assert content == expected, order
            assert rest[: len(subcommand)] == subcommand
            assert sorted(rest[len(subcommand) :]) == ["--run.name=x", "--trainer.max_steps=2"], order
            assert compose([*subcommand, *(word for i in order for word in words[i])])[len(subcommand)].startswith(
                "--c"
            )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--a.b=null"], {"a": {"b": None, "c": 1}}),
        (["--a.b", "~"], {"a": {"b": None, "c": 1}}),
        (["--a.b=3", "--a.b=null"], {"a": {"b": None, "c": 1}}),
        (["--a.b={d: {e: null}}"], {"a": {"b": {"d": {"e": None}, "x": 2}, "c": 1}}),
        (["--a.b.d.e=null"], {"a": {"b": {"d": {"e": None}, "x": 2}, "c": 1}}),
        (["--a.b=[1, null]"], {"a": {"b": [1, None], "c": 1}}),
        (["--a.b=Other", "--a.b.y=null"], {"a": {"b": {"class_path": "Other", "init_args": {"y": None}}, "c": 1}}),
    ],
)
def test_null_is_null_at_any_depth(tmp_path: Path, options: list[str], expected: object) -> None:
    blocks = "{b: {x: 2}, c: 1}" if "Other" not in str(options) else "{b: {class_path: One, init_args: {x: 2}}, c: 1}"
    rest, content = given(["fit", "--config", write(tmp_path, "team.yaml", f"a: {blocks}"), *options])
    assert (rest, content) == (["fit"], expected)


def test_a_value_behind_a_null_wins(tmp_path: Path) -> None:
    team = write(tmp_path, "team.yaml", "a: {b: 1}")
    assert given(["fit", "--config", team, "--a.b=null", "--a.b=2"]) == (["fit", "--a.b=2"], {"a": {"b": None}})


def test_a_single_file_stays_a_path_and_none_changes_nothing(tmp_path: Path) -> None:
    team = write(tmp_path, "team.yaml", "run: {name: x}")
    assert compose(["fit", "-c", team, "--help"]) == ["fit", f"--config={team}", "--help"]
    assert compose(["fit", "--help"]) == ["fit", "--help"]


def test_a_packaged_config_is_found_by_name() -> None:
    argument = compose(["fit", "--config", "pkg:debug/fast.yaml"])[1]
    assert Path(argument.removeprefix("--config=")).name == "fast.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("roles:\n  main: {}\n  main: {}\n", r"'main' appears twice.*line 3"),
        ("roles: [", "not valid YAML"),
        ("roles: !!set {a, b}\n", "'set' is not a supported.*HINT: give a text"),
        ("- a\n- b\n", "is not a mapping"),
    ],
)
def test_a_bad_file_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s){message}") as raised:
        compose(["fit", "--config", write(tmp_path, "team.yaml", text)])
    assert "team.yaml" in str(raised.value)


def test_a_value_of_another_type_in_an_option_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^--model.defaults.tools: .*HINT: give a text"):
        compose(["fit", "--model.defaults.tools=!!set {a, b}"])


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "team.yaml").write_bytes("run: {name: \u00e9t\u00e9}".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"team.yaml' is not UTF-8.*HINT: save it as UTF-8"):
        compose(["fit", "--config", str(tmp_path / "team.yaml")])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml.*No such file"):
        compose(["fit", "--config", "nowhere.yaml"])
