"""The demonstrator, played on the real tools: clean it is right, and every mistake is the one it is called."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.protocol.prompts import LastMessage
from mgrpo_lightning.records.question import Split
from mgrpo_lightning.records.trajectory import Message
from mgrpo_lightning.roles.config import LimitsConfig, RoleConfig
from mgrpo_lightning.tasks import Evidence, Factbook, Question
from mgrpo_lightning.tasks.factbook import held_out
from mgrpo_lightning.tasks.factbook.demonstrator import Demonstrator
from mgrpo_lightning.tasks.factbook.reading import NOT_FOUND
from mgrpo_lightning.tasks.factbook.relations import RELATIONS, lookup, parse_subtask
from tests.agents.fakes import make_team
from tests.tasks.factbook.player import play

OBSERVATION = 400
"""Characters: about the 128 tokens that the pocket team sees."""


@pytest.fixture(scope="module")
def clean() -> Factbook:
    return Factbook(hops=[1, 2, 3, 4], comparisons=True, max_questions=400)


def with_mistakes(clean: Factbook, **mistakes: float) -> Factbook:
    """The same task with another demonstrator; the world and its index are shared."""
    task = object.__new__(Factbook)
    task.__dict__ = {**clean.__dict__, "_demonstrator": Demonstrator(mistakes)}
    return task


@pytest.mark.parametrize("each", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_clean_team_answers_nearly_every_question_of_every_level(clean: Factbook, each: int) -> None:
    right, experts = [], []
    for question in [*clean.questions("train")[:150:each], *clean.questions("test")[:150:each]]:
        main, *subs = play(clean, question, observation=OBSERVATION)
        right.append(asyncio.run(clean.correct(question, main.answer)))
        experts += [asyncio.run(clean.expert(question, sub)) for sub in subs]
        # Only search and the cut of what is read can fail it, and then it says so.
        assert main.answer == NOT_FOUND if not right[-1] else len(subs) == len(question.evidence)
    assert sum(right) > 0.97 * len(right)
    assert sum(experts) > 0.97 * len(experts)


def test_clean_agent_alone_answers_too(clean: Factbook) -> None:
    for question in clean.questions("test")[:50]:
        (alone,) = play(clean, question, callees=())
        assert alone.answer == question.answers[0]
        assert {call.name for call in alone.calls} == {"search", "visit"}


def test_equals_answer_together_each_going_on_from_what_the_others_found(clean: Factbook) -> None:
    limits = LimitsConfig(turns=12, new_tokens=400, calls=12, context=20_000, observation=OBSERVATION)
    equal = RoleConfig("fake", tools=["search", "visit"], limits=limits)
    roles = {"ann": replace(equal, discusses_with=["bob"]), "bob": equal}
    team, _ = make_team(roles, {}, tools=clean.tools())
    asked = [q for q in clean.questions("test") if q.level in ("1 hop", "2 hops")][:30]
    groups = team.play(PlayRequest(asked, step=0, rollouts=1, script=clean.script)).groups
    right = [group.rollouts[0].main.answer == group.question.answers[0] for group in groups]
    assert sum(right) >= 29
    for group in groups:
        ann, bob = group.rollouts[0].leads
        assert abs(len(ann.calls) - len(bob.calls)) <= 1, "in turn"
        assert ann.valid
        assert bob.valid


def test_a_policy_that_always_opens_the_first_hit_fails_often(clean: Factbook) -> None:
    task = with_mistakes(clean, first_hit=1.0)
    short = [question for question in clean.questions("test") if question.level in ("1 hop", "2 hops")]
    played = [(question, play(task, question, observation=OBSERVATION)[0].answer) for question in short]
    right = sum(asyncio.run(task.correct(question, answer)) for question, answer in played)
    assert 0.4 < right / len(short) < 0.75


def highest_point() -> Question:
    hop = Evidence("factbook/france", "Geography: Elevation", "Mont Blanc", "France", "highest_point")
    return Question("q", "What is the highest point of France?", ("Mont Blanc",), "1 hop", (hop,))


def lowest_point() -> Question:
    hop = Evidence("factbook/france", "Geography: Elevation", "Rhone River delta", "France", "lowest_point")
    return Question("q", "What is the lowest point of France?", ("Rhone River delta",), "1 hop", (hop,))


def two_hops(clean: Factbook, relation: str) -> list[Question]:
    return [q for q in clean.questions("train") if q.level == "2 hops" and q.evidence[0].relation == relation]


def test_turns_are_worded_as_documented(clean: Factbook) -> None:
    main, searcher = play(clean, highest_point())
    assert main.messages[2].content == (
        '<tool_call>\n{"name": "searcher", "arguments": {"task": "highest point of France"}}\n</tool_call>'
    )
    assert main.messages[4].content == "<answer>Mont Blanc</answer>"
    assert [message.content for message in searcher.messages if message.role == "assistant"] == [
        '<tool_call>\n{"name": "search", "arguments": {"query": "highest point of France"}}\n</tool_call>',
        '<tool_call>\n{"name": "visit", "arguments": {"url": "factbook/france", "section": "Elevation"}}\n</tool_call>',
        "highest point: Mont Blanc\n<answer>Mont Blanc</answer>",
    ]


def test_an_inverse_lookup_reports_the_title_of_the_page_it_read(clean: Factbook) -> None:
    question = two_hops(clean, "country_by_capital")[0]
    searcher = play(clean, question)[1]
    assert searcher.task == f"country whose capital is {question.evidence[0].subject}"
    assert searcher.messages[-1].content.endswith(
        f"name: {question.evidence[0].subject}\ncountry: {question.evidence[0].value}\n"
        f"<answer>{question.evidence[0].value}</answer>"
    )


def test_what_stands_before_an_answer_is_quoted_with_it(clean: Factbook) -> None:
    holiday = next(q for q in clean.questions("train") if q.evidence[0].relation == "holiday")
    said = play(clean, holiday)[1].messages[-1].content
    date = holiday.answers[0]
    assert re.fullmatch(rf"National holiday: \S[^;]*, {date}\n<answer>{date}</answer>", said)


def test_stop_early_answers_with_the_first_report(clean: Factbook) -> None:
    task = with_mistakes(clean, stop_early=1.0)
    for question in two_hops(clean, "country_by_capital")[:5]:
        main, *subs = play(task, question)
        assert main.answer == question.evidence[0].value != question.answers[0]
        assert len(subs) == 1
    assert play(task, highest_point())[0].answer == "Mont Blanc"


def test_whole_question_is_passed_on_and_only_its_first_lookup_is_done(clean: Factbook) -> None:
    task = with_mistakes(clean, whole_question=1.0)
    for question in two_hops(clean, "country_by_capital")[:5]:
        main, sub = play(task, question)
        assert sub.task == question.text
        assert main.answer == sub.answer == question.evidence[0].value


def test_first_line_reports_whatever_stands_first(clean: Factbook) -> None:
    task = with_mistakes(clean, first_line=1.0)
    assert play(task, highest_point())[1].answer == "Mont Blanc 4,810"
    sub = play(task, lowest_point())[1]
    assert sub.messages[-1].content == "highest point: Mont Blanc 4,810\n<answer>Mont Blanc 4,810</answer>"


def test_first_hit_opens_it_and_reads_what_it_finds(clean: Factbook) -> None:
    task = with_mistakes(clean, first_hit=1.0)
    for question in clean.questions("test")[:20]:
        for sub in play(task, question)[1:]:
            hits = sub.calls[0].result.splitlines()
            assert str(sub.calls[1].arguments["url"]) in hits[0]
            assert len(sub.calls) == 2


def test_no_training_demonstration_opens_a_held_out_page(clean: Factbook) -> None:
    free = with_mistakes(clean, first_hit=1.0)
    bound = Factbook(hops=[1, 2], mistakes={"first_hit": 1.0}, max_questions=120)
    hidden = held_out()

    def opened(task: Factbook, split: Split) -> set[str]:
        calls = [call for q in bound.questions(split) for sub in play(task, q)[1:] for call in sub.calls]
        return {str(call.arguments["url"]) for call in calls if call.name == "visit"}

    assert opened(free, "train") & hidden, "the questions tempt nobody"
    assert not opened(bound, "train") & hidden
    assert opened(bound, "test") & hidden, "a held-out question is answered from its page"


def test_mistakes_are_made_as_often_as_asked_and_repeatably(clean: Factbook, root: Path) -> None:
    shipped = yaml.safe_load((root / "configs/pocket/imperfect.yaml").read_text(encoding="utf-8"))
    mistakes = shipped["data"]["task"]["init_args"]["mistakes"]
    task = with_mistakes(clean, **mistakes)
    question = two_hops(clean, "country_by_capital")[0]
    early = [len(play(task, question, seed=seed)[0].calls) == 1 for seed in range(200)]
    again = [len(play(task, question, seed=seed)[0].calls) == 1 for seed in range(20)]
    assert early[:20] == again
    # 0.6 for stopping early, and what a searcher's mistake in the first hop adds.
    assert 0.5 < sum(early) / 200 < 0.85
    assert min(mistakes.values()) > 0.5, "greedy decoding has to make them"


def test_a_reply_depends_on_the_messages_alone(clean: Factbook) -> None:
    messages = play(clean, highest_point())[1].messages
    script = clean.script(highest_point(), "searcher", "highest point of France", 0, callees=())
    for turn in (6, 4, 2, 4):
        assert script.reply(messages[:turn]) == messages[turn].content


@pytest.mark.parametrize(("role", "callees"), [("main", ["searcher"]), ("searcher", [])])
def test_where_only_an_answer_is_legal_there_is_one(clean: Factbook, role: str, callees: list[str]) -> None:
    script = clean.script(highest_point(), role, "highest point of France", 0, callees=callees)
    messages = [Message("system", role), LastMessage("user", "highest point of France")]
    assert script.reply(messages) == f"<answer>{NOT_FOUND}</answer>"
    read = "France | Geography\nElevation - highest point: Mont Blanc 4,810"
    shown = [Message("tool", "1. factbook/france | France | Geography: Elevation"), LastMessage("tool", read)]
    if role == "searcher":
        assert script.reply([*messages, *shown]).endswith("<answer>Mont Blanc</answer>")


def test_a_failed_delegation_is_reported_as_not_found(clean: Factbook) -> None:
    script = clean.script(highest_point(), "main", highest_point().text, 0, callees=["searcher"])
    messages = [Message("user", "?"), Message("tool", "error: searcher gave no answer.")]
    assert script.reply(messages) == f"<answer>{NOT_FOUND}</answer>"


def test_a_subtask_worded_otherwise_is_searched_for_and_not_found(clean: Factbook) -> None:
    script = clean.script(highest_point(), "searcher", "how high is France", 0, callees=())
    assert '"how high is France"' in script.reply([Message("user", "")])
    assert NOT_FOUND in script.reply([Message("user", ""), Message("tool", "1. a | b | c: d")])


def test_every_subtask_is_read_back(clean: Factbook) -> None:
    steps = {lookup(hop) for question in clean.questions("train") for hop in question.evidence}
    assert len({step.relation.name for step in steps}) == len(RELATIONS)
    for step in steps:
        assert parse_subtask(step.subtask) == step
    assert parse_subtask("capital of ") is None


@pytest.mark.parametrize(("mistakes", "named"), [({"lazy": 0.5}, "'lazy'"), ({"first_hit": 1.5}, "'first_hit'.*1.5")])
def test_unknown_mistakes_are_named(mistakes: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Demonstrator(mistakes)
