"""A value of the wrong kind is refused with its key, what it must be and what was meant; no valid team file is."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from mgrpo_lightning.commands.config_files import composed, with_options
from mgrpo_lightning.commands.config_shapes import refuse_shapes
from mgrpo_lightning.commands.fit import BLOCKS
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.ranges import hints_of
from mgrpo_lightning.roles.config import RoleConfig

ALL = {**BLOCKS, "trainer": Trainer}
ROOT = Path(__file__).parents[2]
ROLE = "model.roles.searcher"
PYTHON = ("<class", "typing.", "NoneType", "Namespace", "dataclass", "subclass")
"""What a user need not know."""


def has(hint: Any, *origins: Any) -> bool:
    return any(one in origins or typing.get_origin(one) in origins for one in (*typing.get_args(hint), hint))


def keys(of: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every key of a block and of the blocks inside, with its type."""
    for key, hint in hints_of(of).items():
        if key in ("args", "kwargs", "return"):
            continue
        yield f"{name}.{key}", hint
        # The blocks of a dict are below names that the user chooses.
        for one in () if has(hint, dict) else (*typing.get_args(hint), hint):
            if isinstance(one, type) and dataclasses.is_dataclass(one):
                yield from keys(one, f"{name}.{key}")


KEYS = [*keys(RoleConfig, ROLE), *keys(BLOCKS["data"], "data"), *keys(BLOCKS["run"], "run")]


def is_block(hint: Any) -> bool:
    return any(isinstance(one, type) and dataclasses.is_dataclass(one) for one in (*typing.get_args(hint), hint))


def told(key: str, value: object) -> str:
    """What is said of one value in a team file."""
    parts = key.split(".")
    content: Any = value
    for part in reversed(parts):
        content = {part: content}
    if parts[0] == "model" and len(parts) > 3:
        content["model"]["roles"]["searcher"].setdefault("base_model", "pocket")
    with pytest.raises(ConfigurationError) as refused:
        refuse_shapes(content, ALL)
    text = str(refused.value)
    assert text.count("HINT: ") == 1
    assert not [word for word in PYTHON if word in text]
    return text


@pytest.mark.parametrize(("key", "hint"), KEYS, ids=[key for key, _ in KEYS])
def test_every_key_refuses_values_of_another_kind(key: str, hint: Any) -> None:
    if has(hint, dict):
        assert told(key, 3).startswith(f"{key} is 3; it must be a block of keys")
        return
    if not has(hint, list, tuple):
        assert told(key, [1, 2]).startswith(f"{key} is [1, 2]; it must be ")
    if is_block(hint):
        for value, shown in ((3, "3"), (True, "true"), ("hello", "hello"), ([{"a": 1}], "[{a: 1}]")):
            text = told(key, value)
            assert text.startswith(f"{key} is {shown}; it must be a block of keys. HINT: write its keys below it: ")
    elif key != "data.task":
        assert told(key, {"a": 1}).startswith(f"{key} is {{a: 1}}; it must be ")
    if has(hint, list):
        assert told(key, "hello") == f"{key} is hello; it must be a list. HINT: did you mean [hello]?"
    if not has(hint, type(None)):
        assert told(key, None).startswith(f"{key} is null; it must be ")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer", [1], "trainer is [1]; it must be a block of keys. HINT: write its keys below it: accelerator,"),
        ("trainer", None, "trainer is empty. HINT: write keys below it, or leave trainer out."),
        ("model", 3, "model is 3; it must be a block of keys. HINT: write its keys below it: roles, quantization,"),
        ("model.roles", ["main"], "model.roles is [main]; it must be a block of keys. HINT: write a block for each"),
        (ROLE, "pocket", f"{ROLE} is pocket; it must be a block of keys. HINT: write its keys below it: base_model,"),
        (ROLE, {"calls": []}, f"{ROLE} lacks base_model. HINT: give base_model, or for all roles in model.defaults."),
        (f"{ROLE}.objective", "supervised", "a block of keys. HINT: did you mean objective: {kind: supervised}?"),
        ("data.alignment", "weights", "data.alignment is weights; it must be a block of keys. HINT: did you mean"),
        (f"{ROLE}.calls", {"writer": {}}, "it must be a list. HINT: did you mean [writer]?"),
        (f"{ROLE}.calls", ["writer", 1], f"{ROLE}.calls[1] is 1; it must be text. HINT: write it in quotes: '1'."),
        (f"{ROLE}.optimizer.betas", [0.9], "is [0.9]; it must be a list of 2 values. HINT: give 2 values."),
        (f"{ROLE}.slots", [3], f"{ROLE}.slots is [3]; it must be an integer. HINT: did you mean 3?"),
        (f"{ROLE}.endpoint", {"backoff": 1}, f"{ROLE}.endpoint lacks url and model. HINT: give url and model, or"),
        ("data.task", 3, "data.task is 3; it must be a class. HINT: give the name of a class, or a block"),
        ("rollout_log.dirpath", ["a"], "rollout_log.dirpath is [a]; it must be text. HINT: did you mean a?"),
    ],
)
def test_the_hint_says_what_was_meant(key: str, value: object, message: str) -> None:
    assert message in told(key, value)


def test_a_mistyped_key_is_left_to_the_parser_that_names_it() -> None:
    refuse_shapes({"model": {"roles": {"main": {"base_modle": "pocket"}}}}, ALL)


def test_options_count_as_the_file_does(tmp_path: Path) -> None:
    path = tmp_path / "team.yaml"
    path.write_text("model: {roles: {main: {calls: [searcher]}}}\n")
    words = ["fit", f"--config={path}", "--model.roles.main.base_model=pocket", "--question={a: 1}"]
    assert with_options(words, ALL) == {"model": {"roles": {"main": {"calls": ["searcher"], "base_model": "pocket"}}}}
    with pytest.raises(ConfigurationError, match=r"model\.roles\.main\.limits is 3; it must be a block"):
        refuse_shapes(with_options([*words, "--model.roles.main.limits=3"], ALL), ALL)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_config_of_the_package_is_refused(path: Path) -> None:
    if path.parent.name == "slurm":
        return  # resources of a cluster, no team file
    refuse_shapes(composed([f"--config={ROOT / 'configs/quickstart.yaml'}", f"--config={path}"]), ALL)
