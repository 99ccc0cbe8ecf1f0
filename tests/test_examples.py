"""Every example runs: as the commands in its head say, on a tiny model, and on a journal that a run has written."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import re
import shlex
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import examples
from examples import trajectories
from examples.own_reward import BriefReports
from examples.own_task import BOOK, TelephoneBook
from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.scoring import score_groups
from mgrpo_lightning.algorithm.config import RewardConfig
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.protocol.prompts import error_text
from mgrpo_lightning.records.trajectory import Call, Group, Key, Rollout, Segment, Span, Trajectory
from mgrpo_lightning.roles.config import LimitsConfig, RoleConfig
from mgrpo_lightning.tasks import Question, Task
from mgrpo_lightning.tasks.answer_rules import fold
from mgrpo_lightning.tools.base import load_tool
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
    assert cli.trainer.default_root_dir == str(root / "runs" / config["run"]["name"])
    if name == "own_tool":
        assert cli.model.roles["searcher"].tools[-1] == "examples.own_tool.to_kilometres"
    else:
        assert type(cli.datamodule.task) in (TelephoneBook, BriefReports)


def test_every_example_is_tried(root: Path) -> None:
    names = {path.stem for path in (root / "examples").glob("*.py")}
    assert names == {"__init__", "own_tool", "own_task", "own_reward", "one_step", "trajectories"}


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
    groups = team.play(PlayRequest(questions, step=0, rollouts=1, script=task.script)).groups
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


def book_calls(question: Question) -> list[tuple[str, dict[str, Any]]]:
    """Everything that leads to the answer, and calls that fail."""
    names = (question.id, BOOK[question.id][0], "Nobody", "")
    return [("look_up", {"name": name}) for name in names]


def factbook_calls(question: Question) -> list[tuple[str, dict[str, Any]]]:
    hops = [("visit", {"url": hop.url, "section": hop.section.partition(": ")[2]}) for hop in question.evidence]
    failing = [("visit", {"url": "factbook/atlantis", "section": "Capital"}), ("search", {"query": "?!"})]
    return [*hops, *failing, ("search", {"query": question.text})]


ATTACKED: dict[type[Task], Callable[[Question], list[tuple[str, dict[str, Any]]]]] = {
    TelephoneBook: book_calls,
    BriefReports: factbook_calls,
}


def test_every_task_of_the_examples_is_attacked() -> None:
    modules = [importlib.import_module(f"examples.{found.name}") for found in pkgutil.iter_modules(examples.__path__)]
    own = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    assert {kind for kind in own if issubclass(kind, Task) and kind.__module__.startswith("examples")} == set(ATTACKED)


@pytest.mark.parametrize("kind", ATTACKED)
def test_reports_that_nobody_should_be_paid_for_earn_the_format_alone(kind: type[Task]) -> None:
    """Errors, pages and lines that tools showed, the question, single letters: after calls that went well and ill."""
    task = kind()
    tools = task.tools()
    roles = {
        "main": RoleConfig("fake", calls=["searcher"], reward=RewardConfig(0.1, correct=0.9)),
        "searcher": RoleConfig("fake", tools=sorted(tools), reward=RewardConfig(0.1, expert=0.9)),
    }
    for question in [*task.questions("train")[:8], *task.questions("validation")[:4]]:
        calls = []
        for name, arguments in ATTACKED[kind](question):
            try:
                calls.append(Call(0, name, arguments, asyncio.run(tools[name](**arguments))))
            except ToolError as error:
                calls.append(Call(0, name, arguments, error_text(error), failed=True))
        assert {call.failed for call in calls} == {True, False}
        shown = [call.result for call in calls]
        lines = [line for text in shown for line in text.splitlines()]
        worthless = [*shown, *lines, "\n".join(shown), question.text, "error", "unknown", *string.printable.strip()]
        gold = {fold(value) for value in (*question.answers, *(hop.value for hop in question.evidence))}
        for report in (report for report in worthless if fold(report) not in gold):
            main = Trajectory("main", Key(0, 0, 0, 0), question.text, answer=report)
            sub = Trajectory("searcher", Key(0, 0, 0, 1), "?", calls=calls, answer=report, parent=0)
            main.segments = sub.segments = [Segment([Span("observation", (1,)), Span("action", (2,), (-0.5,))])]
            rollout = Rollout(main, [sub])
            score_groups([Group(question, [rollout])], task, roles)
            assert [score.total for score in rollout.scores.values()] == [0.1, 0.1], report


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
