"""Every example runs: as the commands in its head say, on a tiny model, and on a journal that a run has written."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples import trajectories
from examples.own_reward import BriefReports
from examples.own_task import BOOK, TelephoneBook
from mgrpo_lightning.agents.scoring import score_groups
from mgrpo_lightning.cli import make_cli
from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.roles import LimitsConfig, RewardConfig, RoleConfig
from mgrpo_lightning.tools.base import load_tool
from mgrpo_lightning.trajectory import Call, Key, Trajectory
from tests.agents.fakes import make_team
from tests.viewer.runs import write_run


def command(root: Path, name: str) -> list[str]:
    """What the head of an example says to type."""
    (line,) = re.findall(r"^    mgrpo fit (.*)$", (root / "examples" / f"{name}.py").read_text(), re.MULTILINE)
    return shlex.split(line)


@pytest.mark.parametrize("name", ["own_tool", "own_task", "own_reward"])
def test_the_command_in_an_example_makes_its_team(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    cli = make_cli([*command(root, name), "--trainer.accelerator=cpu"], run=False)
    config = yaml.safe_load((root / "examples" / f"{name}.yaml").read_text())
    assert cli.trainer.default_root_dir == f"runs/{config['run']['name']}"
    if name == "own_tool":
        assert cli.model.roles["searcher"].tools[-1] == "examples.own_tool.to_kilometres"
    else:
        assert type(cli.datamodule.task) in (TelephoneBook, BriefReports)


def test_every_example_is_tried(root: Path) -> None:
    names = {path.stem for path in (root / "examples").glob("*.py")}
    assert names == {"__init__", "own_tool", "own_task", "own_reward", "trajectories"}


def test_the_tool_converts_and_says_what_it_cannot() -> None:
    tool = load_tool("examples.own_tool.to_kilometres")
    assert asyncio.run(tool(distance=10, unit="mi")) == "16.0934 km"
    with pytest.raises(ToolError, match="no unit of distance"):
        asyncio.run(tool(distance=10, unit="yd"))


def test_the_task_can_be_demonstrated_and_is_scored() -> None:
    task = TelephoneBook()
    limits = LimitsConfig(turns=4, new_tokens=200, calls=4, context=10_000, observation=200)
    roles = {
        "main": RoleConfig("fake", calls=["searcher"], limits=limits, reward=RewardConfig(0.1, correct=0.9)),
        "searcher": RoleConfig("fake", tools=["look_up"], limits=limits, reward=RewardConfig(0.1, expert=0.9)),
    }
    team, _ = make_team(roles, {}, tools=task.tools())
    questions = [*task.questions("train"), *task.questions("validation")]
    groups = team.play(questions, step=0, rollouts=1, script=task.script)
    score_groups(groups, task, roles)
    assert len(questions) == len(BOOK)
    assert all(score.total == 1.0 for group in groups for score in group.rollouts[0].scores.values())


def test_the_reward_halves_what_is_longer_than_needed() -> None:
    task = BriefReports(max_questions=4)
    question = next(q for q in task.questions("train") if q.level == "1 hop")
    hop = question.evidence[0]

    def report(answer: str) -> float:

        calls = [Call(0, "visit", {"url": hop.url}, "page")]
        return asyncio.run(
            task.expert(question, Trajectory("searcher", Key(0, 0, 0, 1), "?", calls=calls, answer=answer))
        )

    assert report(hop.value) in (0.5, 1.0)
    assert report(hop.value) == (1.0 if len(hop.value) <= 40 else 0.5)
    assert report(f"{hop.value}{'.' * 50}") == 0.5
    assert report("another") == 0


@pytest.mark.parametrize("ask", ["with_pandas", "with_duckdb", "with_polars"])
def test_a_journal_is_asked_in_five_lines(ask: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    found: Any = getattr(trajectories, ask)(str(run))
    if ask == "with_pandas":
        rows = [(*index, *row) for index, row in zip(found.index, found.itertuples(index=False), strict=True)]
    else:
        rows = found.fetchall() if ask == "with_duckdb" else found.rows()
    rewards = [(step, role, count, round(reward, 9), broken) for step, role, count, reward, broken in rows]
    assert rewards == [(step, role, 4, 0.3, int(role == "main")) for step in (0, 1) for role in ("main", "searcher")]
