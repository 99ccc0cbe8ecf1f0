"""References between values of a team file; texts of users, and the environment, are never looked up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.commands.config_files import compose
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.commands.references import TEXTS
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.commands.yaml_text import dumped, parsed
from mgrpo_lightning.errors import ConfigurationError
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model

ODD = "Costs ${100}, ${oc.env:HOME}, ${run.name}, ${a}${b}, \\${x}, ${ and $${run.name}}"


def resolved(content: dict[str, Any], options: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What a config file and the words behind it become."""
    words = compose([f"--config={dumped(content)}", *options])
    (config,) = [word for word in words if word.startswith("--config=")]
    return parsed(config.removeprefix("--config=")), [word for word in words if word != config]


def test_values_refer_to_others_wherever_those_stand() -> None:
    content = {
        "run": {"name": "x"},
        "trainer": {"max_steps": "${data.queries_per_step}"},
        "data": {"init_args": {"queries_per_step": 8, "journal": "${run.root}/${run.name}/j", "list": ["${run.seed}"]}},
        "model": {"task": {"class_path": "A", "init_args": {"x": "${data.init_args.journal}", "y": "${model.task.x}"}}},
    }
    found, options = resolved(content, ["fit", "--run.name=y", "--rollout_log.dirpath=${run.root}/${data.journal}"])
    assert found["trainer"] == {"max_steps": 8}
    assert found["data"] == {"queries_per_step": 8, "journal": "runs/y/j", "list": [0]}
    assert found["model"]["task"]["init_args"] == {"x": "runs/y/j", "y": "runs/y/j"}
    assert options == ["fit", "--run.name=y", "--rollout_log.dirpath=runs/runs/y/j"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("${oc.env:HOME}", r"root is '\$\{oc.env:HOME\}', which takes its value from outside"),
        ("a/${oc.env:HOME,x}", "from outside"),
        ("${ oc.create:5 }", "from outside"),
        ("${run.nmae}", r"root is '\$\{run.nmae\}': Interpolation key 'run.nmae' not found"),
        ("${run.root}", "Recursive interpolation detected"),
    ],
)
def test_what_leads_nowhere_is_named(value: str, problem: str) -> None:
    for content, options in (({"run": {"root": value}}, []), ({}, [f"--run.root={value}"])):
        with pytest.raises(ConfigurationError, match=f"{problem}.*HINT"):
            resolved(content, options)


def test_the_mark_of_a_missing_value_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"root is '\?\?\?', which marks a missing value.*HINT"):
        resolved({"run": {"root": "???"}}, [])


@given(st.text() | st.just(ODD), st.sampled_from(TEXTS))
def test_a_text_stays_as_it_is(text: str, key: str) -> None:
    content: dict[str, Any] = {"run": {"name": "x"}, "model": {"roles": {"main": {key: text}}}}
    option = f"--model.roles.main.{key}=%{text}"  # no YAML, so never a null, which would move into the file
    assert resolved(content, [option]) == (content, [option])


@given(st.text() | st.just(ODD) | st.from_regex(r"[\\$ {}a]*"), st.sampled_from(TEXTS))
def test_a_reference_to_a_text_gives_the_text(text: str, key: str) -> None:
    content: dict[str, Any] = {"model": {"main": {key: text}}, "data": {"say": f"${{model.main.{key}}}"}}
    assert resolved(content, [])[0]["data"] == {"say": text}


@pytest.mark.parametrize("odd", ["run", None, 3, ["a"], {"name": {"a": 1}}, {"name": None}, {2: 3}])
def test_what_the_parser_will_refuse_is_left_to_it(odd: object) -> None:
    options = ["--run={a: {b: 1}}", "--run.a=[2]", "--run.a={c: 3}", "--run.a.c.d=4"]
    content = {"run": odd, "trainer": {"since": "2026-01-01"}}
    assert resolved(content, ["--run..=2", "--run[0]=x", "--=", "--run.name.b.c=1", *options])[0] == content


@pytest.mark.parametrize("text", ["What costs ${100}?", "${HOME}", "${", "$100 and ${a.b}", "${trainer}"])
def test_what_is_no_reference_is_text_under_any_key(text: str) -> None:
    content = {"data": {"task": {"prompt": text}}}
    assert resolved(content, [f"--data.task.prompt={text}"]) == (content, [f"--data.task.prompt={text}"])


def test_what_has_been_composed_is_composed_again_alike(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"run": {"name": "x"}, "model": {"m": {"system_prompt": ODD}}}))
    (tmp_path / "b.yaml").write_text("data: {journal: '${run.name}/j'}")
    once = compose(
        ["fit", "--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml"), "--question", ODD]
    )
    assert compose(once) == once


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    return write_team_file(tmp_path, make_tiny_model(tmp_path / "tiny"))


def test_a_team_s_prompts_and_paths_are_what_was_written(team: Path) -> None:
    written = yaml.safe_load(team.read_text())
    written["model"]["roles"]["main"]["system_prompt"] = ODD
    written["data"]["journal"] = "${run.root}/${run.name}/own"
    team.write_text(yaml.safe_dump(written))
    description = f"--model.roles.searcher.description={ODD}"
    cli = make_cli(["--config", str(team), description, "--run.name=other"], run=False)
    assert cli.model.roles["main"].system_prompt == ODD
    assert cli.model.roles["searcher"].description == ODD


def test_a_question_is_asked_as_it_stands(team: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["predict", "--config", str(team), "--question", ODD])
    assert ODD in capsys.readouterr().out


def test_bytes_that_are_no_text_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["predict", "--question", b"caf\xe9".decode(errors="surrogateescape")])
    assert ended.value.code == 2
    assert r"'--question'" not in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match=r"'caf\\udce9' on the command line is not UTF-8.*HINT"):
        compose(["--question", b"caf\xe9".decode(errors="surrogateescape")])
