"""The reference of the team file, written from the dataclasses and docstrings that define its keys."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from docstring_parser import parse

from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.algorithm.config import ObjectiveConfig, RewardConfig
from mgrpo_lightning.commands.run_config import RunConfig
from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
from mgrpo_lightning.data.peers import PeersConfig
from mgrpo_lightning.data.selection import SelectionConfig
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.modules.validation import ValidationConfig
from mgrpo_lightning.ranges import ranges_of
from mgrpo_lightning.roles.config import AdapterConfig, LimitsConfig, OptimizerConfig, RoleConfig, SamplingConfig
from mgrpo_lightning.services.endpoint import EndpointConfig
from mgrpo_lightning.tasks import Factbook, JsonlTask, Judge

BLOCKS: list[tuple[str, type]] = [
    ("run", RunConfig),
    ("model.init_args", TeamModule),
    ("model.init_args.roles.ROLE", RoleConfig),
    ("model.init_args.roles.ROLE.adapter", AdapterConfig),
    ("model.init_args.roles.ROLE.sampling", SamplingConfig),
    ("model.init_args.roles.ROLE.limits", LimitsConfig),
    ("model.init_args.roles.ROLE.reward", RewardConfig),
    ("model.init_args.roles.ROLE.objective", ObjectiveConfig),
    ("model.init_args.roles.ROLE.optimizer", OptimizerConfig),
    ("model.init_args.roles.ROLE.endpoint", EndpointConfig),
    ("data.init_args", AlignedTrajectoryDataModule),
    ("data.init_args.alignment", AlignmentConfig),
    ("data.init_args.validation", ValidationConfig),
    ("data.init_args.selection", SelectionConfig),
    ("data.init_args.peers", PeersConfig),
    ("data.init_args.task.init_args (Factbook)", Factbook),
    ("data.init_args.task.init_args (JsonlTask)", JsonlTask),
    ("judge.init_args (Judge)", Judge),
]
"""Where a block stands, and the class whose fields or arguments are its keys."""


def reference() -> str:
    """All blocks as Markdown tables: key, type, default, meaning."""
    return "\n".join(line for place, block in BLOCKS for line in _section(place, block))


def _section(place: str, block: type) -> Iterator[str]:
    first, _, _ = (inspect.getdoc(block) or "").partition("\n\n")
    yield from (f"\n## `{place}`\n", " ".join(first.split()), "", "| key | type | default | |", "|---|---|---|---|")
    keys = _fields(block) if dataclasses.is_dataclass(block) else _arguments(block)
    for name, kind, default, meaning in keys:
        cells = (f"`{name}`", kind, default, " ".join(meaning.split()))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _fields(block: type) -> Iterator[tuple[str, str, str, str]]:
    """Of a dataclass: the texts below its fields say what they are."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(block))).body
    assert isinstance(tree, ast.ClassDef)
    said = {
        node.target.id: following.value.value
        for node, following in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }
    for field in dataclasses.fields(block):
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield field.name, _kind(block, field.name), _shown(default, dataclasses.MISSING), str(said[field.name])


def _arguments(block: type) -> Iterator[tuple[str, str, str, str]]:
    """Of a class: its docstring says what its arguments are."""
    said = {one.arg_name: one.description or "" for one in parse(inspect.getdoc(block) or "").params}
    for name, parameter in list(inspect.signature(block).parameters.items()):
        if parameter.kind is not parameter.VAR_KEYWORD:
            yield name, _kind(block, name), _shown(parameter.default, parameter.empty), said[name]


def _kind(block: type, name: str) -> str:
    """The type of a key and the range of its numbers."""
    hints = typing.get_type_hints(block if dataclasses.is_dataclass(block) else inspect.unwrap(vars(block)["__init__"]))
    kind = re.sub(r"(\w+\.)+(?=\w)", "", inspect.formatannotation(hints[name]))
    allowed = ranges_of(block).get(name)
    return f"`{kind}`" if allowed is None else f"`{kind}`, {allowed}"


def _shown(default: object, none: object) -> str:
    if default is none:
        return "required"
    if dataclasses.is_dataclass(default):
        return "see below"
    return "`null`" if default is None else f"`{default}`"
