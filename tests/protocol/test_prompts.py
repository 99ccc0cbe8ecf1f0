import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.protocol.actions import parse
from mgrpo_lightning.protocol.arguments import check_arguments
from mgrpo_lightning.protocol.prompts import NOTICE, ROLE_SCHEMA, LastMessage, for_scripts, signatures, system_prompt
from mgrpo_lightning.records.trajectory import Message
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tasks.base import Script
from tests.agents.fakes import FakeTool, call, echo, limits, make_team, question


def prompt(role: RoleConfig, *, callees: bool = True) -> str:
    offered = {"searcher": RoleConfig("fake", description="Looks facts up.")} if callees else {}
    return system_prompt("main", role, signatures(offered, [FakeTool(echo)] if callees else []))


def test_the_prompt_lists_roles_and_tools_with_their_schemas() -> None:
    text = prompt(RoleConfig("fake", description="You plan."))
    listed = re.search(r"<tools>\n(.*)\n</tools>\n\nFor", text, re.DOTALL)
    assert listed
    functions = [json.loads(line)["function"] for line in listed[1].split("\n")]
    assert functions == [
        {"name": "searcher", "description": "Looks facts up.", "parameters": ROLE_SCHEMA},
        {"name": "search", "description": "Finds pages.", "parameters": FakeTool(echo).parameters},
    ]
    assert text.startswith("You are main. You plan.\n")
    assert "<tool_call></tool_call>" in text
    assert "<answer></answer>" in text


def test_a_role_that_calls_nobody_is_told_of_answers_only() -> None:
    text = prompt(RoleConfig("fake"), callees=False)
    assert "<answer></answer>" in text
    assert "tool_call" not in text


def test_the_roles_own_prompt_wins() -> None:
    assert prompt(replace(RoleConfig("fake"), system_prompt="Mine.")) == "Mine."


def test_the_notice_holds_no_tag() -> None:
    assert parse(NOTICE).thought == NOTICE
    assert "<" not in NOTICE


SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "n": {"type": "integer"},
        "x": {"type": "number"},
        "flag": {"type": "boolean"},
        "maybe": {"type": ["string", "null"]},
        "any": {},
    },
    "required": ["text"],
}


@pytest.mark.parametrize(
    "arguments",
    [{"n": 1}, {"x": 1}, {"x": 1.5}, {"flag": True}, {"maybe": None}, {"maybe": "a"}, {"any": [1]}, {"any": None}],
)
def test_fitting_arguments_pass(arguments: dict[str, object]) -> None:
    check_arguments("tool", SCHEMA, {"text": "a", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "tool needs the argument 'text'"),
        ({"text": None}, "text must be of type string, not None"),
        ({"text": "a", "n": 1.5}, "n must be of type integer, not 1.5"),
        ({"text": "a", "n": True}, "n must be of type integer, not True"),
        ({"text": "a", "x": "1"}, "x must be of type number, not '1'"),
        ({"text": "a", "flag": 1}, "flag must be of type boolean, not 1"),
        ({"text": "a", "maybe": 3}, "maybe must be of type string or null, not 3"),
        ({"text": "a", "self": 3}, "tool has no argument 'self'"),
    ],
)
def test_arguments_that_do_not_fit_are_told_to_the_policy(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        check_arguments("tool", SCHEMA, arguments)


class Repeats(Script):
    """Looks something up, and answers with whatever the tool said."""

    def reply(self, messages: Sequence[Message]) -> str:
        self.seen = messages
        return f"<answer>{messages[-1].content}</answer>" if messages[-1].role == "tool" else call("search", query="x")


@pytest.mark.parametrize("turns", [2, 6])
def test_a_script_sees_what_a_tool_said_and_not_the_notice(turns: int) -> None:
    script = Repeats()
    team, _ = make_team({"main": RoleConfig("fake", tools=["search"], limits=limits(turns=turns))}, {})
    (group,) = team.play(PlayRequest([question()], step=0, rollouts=1, script=lambda *_, **__: script)).groups
    played = group.rollouts[0].main
    assert played.messages[-2].content == ("page of x\n" + NOTICE if turns == 2 else "page of x")
    assert played.answer == "page of x"
    assert isinstance(script.seen[-1], LastMessage) == (turns == 2)


def test_a_task_without_calls_is_a_last_message_too_and_an_answer_never_is() -> None:
    asked = Message("user", f"What?\n{NOTICE}")
    assert for_scripts([Message("system", "s"), asked]) == (Message("system", "s"), LastMessage("user", "What?"))
    assert for_scripts([Message("tool", NOTICE)]) == (LastMessage("tool", ""),)
    said = [asked, Message("assistant", NOTICE)]
    assert for_scripts(said) == tuple(said)
