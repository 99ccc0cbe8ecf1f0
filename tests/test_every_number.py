"""Every numeric key of a team file: it has a range, numbers out of it are refused by name, others train two steps."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
import yaml

import mgrpo_lightning.tasks
import mgrpo_lightning.tools
from mgrpo_lightning.commands.config_files import composed
from mgrpo_lightning.commands.config_numbers import refuse_numbers
from mgrpo_lightning.commands.fit import BLOCKS
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.ranges import Range, hints_of, range_in, refuse
from mgrpo_lightning.records.journal import read_groups
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tools.sets import ToolSet
from tests.support.chat_server import Server, said
from tests.support.team_file import write_team_file

VALUES = (math.nan, math.inf, -math.inf, -1, 0, 1e30)
LIGHTNINGS = ("checkpoint",)
"""Blocks whose numbers Lightning checks."""


def classes() -> Iterator[tuple[str, type]]:
    """What a team file is made of: its blocks, tasks, sets of tools and judges."""
    yield from ((name, block) for name, block in BLOCKS.items() if name not in LIGHTNINGS)
    yield ("judge", Judge)
    for package in (mgrpo_lightning.tasks, mgrpo_lightning.tools):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found = {*subclasses(Task), *subclasses(ToolSet)}
    yield from ((one.__name__, one) for one in found if one.__module__.startswith("mgrpo_lightning"))


def subclasses(cls: Any) -> Iterator[type]:
    for one in cls.__subclasses__():
        yield one
        yield from subclasses(one)


def numbers(name: str, hint: Any) -> Iterator[tuple[str, Range | None]]:
    """Numeric keys in a type, with their ranges, and with ROLE for free names."""
    if typing.get_origin(hint) is Annotated or hint in (int, float):
        yield name, range_in(hint)
    elif typing.get_origin(hint) is dict:
        yield from numbers(f"{name}.ROLE", typing.get_args(hint)[1])
    elif typing.get_args(hint):
        for part in typing.get_args(hint):
            yield from numbers(name, part)
    elif dataclasses.is_dataclass(hint):
        for key, one in hints_of(typing.cast("Any", hint)).items():
            yield from numbers(f"{name}.{key}", one)


KEYS = {
    key: allowed
    for name, cls in classes()
    for argument, hint in hints_of(cls).items()
    for key, allowed in numbers(f"{name}.{argument}", hint)
}


def test_every_number_has_a_range() -> None:
    assert {"model.roles.ROLE.optimizer.betas", "data.cache_gib", "judge.audit"} < KEYS.keys()
    assert len(KEYS) > 60
    assert not [key for key, allowed in KEYS.items() if allowed is None]


def test_every_number_that_is_none_or_has_no_end_is_out_of_range() -> None:
    for key, allowed in KEYS.items():
        assert allowed is not None
        for value in (math.nan, -math.inf, -1):
            with pytest.raises(ConfigurationError, match=rf"{key} is {value}\. HINT: give "):
                refuse(value, allowed, key)
        assert (math.inf in allowed) == key.endswith(("optimizer.clip_norm", "limits.tool_seconds"))


def test_every_number_is_refused_when_its_class_is_made() -> None:
    for _, cls in classes():
        for key, hint in hints_of(cls).items():
            if (allowed := range_in(hint)) is not None and typing.get_args(hint)[0] is not dict:
                needed = {
                    one.name: "x"
                    for one in inspect.signature(cls).parameters.values()
                    if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
                }
                value = -1 if -1 not in allowed else math.nan
                with pytest.raises(ConfigurationError, match=rf"{key} is {value}"):
                    cls(**{**needed, key: value})


def nested(key: str, value: object) -> dict[str, Any]:
    """A config in which one key has a value; the searcher stands for every role."""
    *blocks, last = key.replace("ROLE", "searcher").split(".")
    config: dict[str, Any] = {last: value}
    for name in reversed(blocks):
        config = {name: config}
    return config


OF_A_TEAM = [key for key in KEYS if key.partition(".")[0] in BLOCKS]


def test_every_number_is_refused_by_its_full_name_in_a_config() -> None:
    for key in OF_A_TEAM:
        for value in VALUES:
            allowed = KEYS[key]
            assert allowed is not None
            config = nested(key, [value, value] if key.endswith("betas") else value)
            if value in allowed:
                refuse_numbers(config, BLOCKS, "")
                continue
            full = key.replace("ROLE", "searcher")
            with pytest.raises(
                ConfigurationError, match=rf"^{full}(\[0\])? is {value}\. HINT: give ".replace("+", r"\+")
            ):
                refuse_numbers(config, BLOCKS, "")


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--model.roles.main.optimizer.lr=.inf", "model.roles.main.optimizer.lr is inf"),
        ("--model.roles.main.optimizer.betas=[0.9,1.0]", r"model.roles.main.optimizer.betas\[1\] is 1.0"),
        ("--run.seed=-1", "run.seed is -1"),
    ],
)
def test_every_number_is_checked_by_a_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, name: str
) -> None:
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(write_team_file(tmp_path, tmp_path / "no_model")), option, "--dry_run"])
    assert stopped.value.code == 2
    assert re.search(rf"^mgrpo: error: {name}\. HINT: give ", capsys.readouterr().err, flags=re.MULTILINE)


ALLOWED = [(key, value) for key in OF_A_TEAM for value in VALUES if value in typing.cast("Range", KEYS[key])]
IN_THE_SUITE = ("optimizer.clip_norm", "optimizer.betas", "limits.calls")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(key, value, marks=[] if key.endswith(IN_THE_SUITE) else [pytest.mark.slow])
        for key, value in ALLOWED
    ],
)
def test_every_number_in_its_range_trains_or_is_refused(
    tmp_path: Path,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    server: Server,
    key: str,
    value: float,
) -> None:
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    team = write_team_file(tmp_path, tiny, objective="mgrpo", max_steps=2, limit_val_batches=0)
    number = int(value) if isinstance(value, float) and value == 0 else value
    changes = nested(key, [number, number] if key.endswith("betas") else number)
    if ".endpoint." in key:  # a role behind an endpoint is untrained, and needs a server
        server.replies = [said("<answer>no</answer>")]
        searcher = changes["model"]["roles"]["searcher"]
        searcher["trainable"] = False
        searcher["endpoint"] |= {"url": server.url, "model": "reader"}
    if ".functions." in key:
        function = changes["model"]["roles"]["searcher"]["reward"]["functions"]["searcher"]
        function["function"] = "tests.support.rewards.brevity"
    if ".selection." in key:  # needs the journal of a validation on the training questions
        main(["validate", "--config", str(team), "--data.validation.split=train", "--trainer.limit_val_batches=1.0"])
        changes["data"]["selection"]["journal"] = str(tmp_path / "runs" / "toy" / "journal" / "validate")
    (tmp_path / "changes.yaml").write_text(yaml.safe_dump(changes))
    words = ["--config", str(team), "--config", str(tmp_path / "changes.yaml")]
    assert composed(words)
    ended = []
    for dry in (["--dry_run"], []):
        try:
            main(["fit", *words, *dry])
            ended.append(0)
        except SystemExit as stopped:
            ended.append(typing.cast("int", stopped.code))
            if stopped.code:
                error = capsys.readouterr().err
                assert key.rpartition(".")[-1] in error
                assert "HINT" in error
    assert ended in ([0, 0], [2, 2]), "a dry run says what a run says"
    if ended == [2, 2]:
        return
    run = tmp_path / "runs" / "toy"
    state = torch.load(run / "checkpoints" / "step=000002.ckpt", weights_only=True)
    assert all(tensor.isfinite().all() for role in state["roles"].values() for tensor in role["adapter"].values())
    for step in range(2):
        groups = read_groups(run / "journal" / f"step-{step:06d}.parquet")
        assert all(rollout.main.num_actions for group in groups for rollout in group.rollouts)
