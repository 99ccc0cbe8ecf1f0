"""Write the tables of docs/team_file.md from the classes and docstrings that define the keys: ``make reference``."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docstring_parser import parse

from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.algorithm.config import ObjectiveConfig, RewardConfig, RewardFunction
from mgrpo_lightning.commands.fit import CALLBACKS
from mgrpo_lightning.commands.run_config import RunConfig
from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
from mgrpo_lightning.data.selection import SelectionConfig
from mgrpo_lightning.data.store_connection import PeersConfig
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.modules.validation_config import ValidationConfig
from mgrpo_lightning.ranges import ranges_of
from mgrpo_lightning.roles.config import AdapterConfig, LimitsConfig, OptimizerConfig, RoleConfig, SamplingConfig
from mgrpo_lightning.services.endpoint import EndpointConfig
from mgrpo_lightning.tasks import DatasetTask, Factbook, JsonlTask, Judge

BLOCKS: list[tuple[str, type]] = [
    ("run", RunConfig),
    ("model", TeamModule),
    ("model.roles.ROLE and model.defaults", RoleConfig),
    ("model.roles.ROLE.adapter", AdapterConfig),
    ("model.roles.ROLE.sampling", SamplingConfig),
    ("model.roles.ROLE.limits", LimitsConfig),
    ("model.roles.ROLE.reward", RewardConfig),
    ("model.roles.ROLE.reward.functions.NAME", RewardFunction),
    ("model.roles.ROLE.objective", ObjectiveConfig),
    ("model.roles.ROLE.optimizer", OptimizerConfig),
    ("model.roles.ROLE.endpoint", EndpointConfig),
    ("data", AlignedTrajectoryDataModule),
    ("data.alignment", AlignmentConfig),
    ("data.validation", ValidationConfig),
    ("data.selection", SelectionConfig),
    ("data.peers", PeersConfig),
    ("data.task, class Factbook", Factbook),
    ("data.task, class JsonlTask", JsonlTask),
    ("data.task, class DatasetTask", DatasetTask),
    ("judge of a task, class Judge", Judge),
    *(
        (name, block)
        for name, block in CALLBACKS.items()
        if name != "checkpoint" and inspect.signature(block).parameters
    ),
]
"""Where a block stands, and the class whose fields or arguments are its keys."""


PAGE = Path(__file__).with_name("team_file.md")
MARK = "<!-- Written by `make reference` from here on; do not edit. -->\n"


def page(text: str) -> str:
    """Return the page with new tables.

    Args:
        text: The page; what stands above ``MARK`` is kept.
    """
    guide, mark, _ = text.partition(MARK)
    assert mark, f"{PAGE} has no line {MARK}"
    return guide + mark + reference()


def reference() -> str:
    """Return all blocks as Markdown tables: key, type, default, range, meaning."""
    return "\n".join(line for place, block in BLOCKS for line in _section(place, block)) + "\n"


def _section(place: str, block: type) -> Iterator[str]:
    first, _, _ = (inspect.getdoc(block) or "").partition("\n\n")
    yield from (
        f"\n## `{place}`\n",
        " ".join(first.split()),
        "",
        "| key | type | default | range | meaning |",
        "|---|---|---|---|---|",
    )
    keys = _fields(block) if dataclasses.is_dataclass(block) else _arguments(block)
    for name, default, meaning in keys:
        cells = (
            f"`{name}`",
            _kind(block, name),
            default,
            str(ranges_of(block).get(name, "")),
            " ".join(meaning.split()),
        )
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _fields(block: type) -> Iterator[tuple[str, str, str]]:
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
        yield field.name, _shown(default, dataclasses.MISSING), str(said[field.name])


def _arguments(block: type) -> Iterator[tuple[str, str, str]]:
    """Of a class: its docstring says what its arguments are."""
    said = {one.arg_name: one.description or "" for one in parse(inspect.getdoc(block) or "").params}
    for name, parameter in list(inspect.signature(block).parameters.items()):
        if parameter.kind is not parameter.VAR_KEYWORD:
            yield name, _shown(parameter.default, parameter.empty), said[name]


def _kind(block: type, name: str) -> str:
    hints = typing.get_type_hints(block if dataclasses.is_dataclass(block) else inspect.unwrap(vars(block)["__init__"]))
    kind = re.sub(r"(\w+\.)+(?=\w)", "", inspect.formatannotation(hints[name]))
    if (optional := re.fullmatch(r"Optional\[(.+)\]", kind)) is not None:
        kind = f"{optional[1]} | None"
    return f"`{kind}`"


def _shown(default: object, none: object) -> str:
    if default is none:
        return "required"
    if dataclasses.is_dataclass(default):
        return "see below"
    return "`null`" if default is None else f"`{default!r}`" if default == "" else f"`{default}`"


if __name__ == "__main__":
    new = page(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(new, encoding="utf-8")
