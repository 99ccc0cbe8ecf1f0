"""Equals in one discussion: who sees what and when, whose answer counts, who has left, what each is rewarded for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.scoring import score_groups
from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.algorithm.config import ObjectiveConfig, RewardConfig
from mgrpo_lightning.data.aligned_batches import align_role
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.modules.play_metrics import observe_play, play_metrics
from mgrpo_lightning.protocol.actions import Violation
from mgrpo_lightning.protocol.tree import render
from mgrpo_lightning.records.trajectory import Group, Rollout
from mgrpo_lightning.roles.config import RoleConfig, main_role
from tests.agents.fakes import FakeTask, FakeTool, Speak, answer, call, echo, limits, make_team, question

REWARD = RewardConfig(format=0.1, correct=0.9)
EQUAL = RoleConfig("fake", tools=["search"], system_prompt="equal", limits=limits(), reward=REWARD)
TRIO = {"ann": replace(EQUAL, discusses_with=["bob", "cid"]), "bob": EQUAL, "cid": EQUAL}


def asks(word: str, *, answers_in: int = 99) -> Speak:
    return lambda _, turn, __: answer(word) if turn == answers_in else call("search", query=f"{word}{turn}")


def play(speakers: Mapping[str, Speak], rollouts: int = 1, roles: Mapping[str, RoleConfig] = TRIO) -> list[Rollout]:
    team, samplers = make_team(roles, speakers, tools={"search": FakeTool(echo)})
    (group,) = team.play(PlayRequest([question("Where?")], step=0, rollouts=rollouts)).groups
    assert all(conversation.closed for sampler in samplers.values() for conversation in sampler.opened)
    return group.rollouts


def test_agents_act_in_turn_and_see_all_that_was_done_since() -> None:
    (rollout,) = play({"ann": asks("a"), "bob": asks("b", answers_in=1), "cid": asks("c")})
    ann, bob, cid = rollout.leads
    assert [(t.role, t.key.invocation, t.parent, t.task) for t in rollout.leads] == [
        ("ann", 0, None, "Where?"),
        ("bob", 1, None, "Where?"),
        ("cid", 2, None, "Where?"),
    ]
    told = {name: f'{name}: search({{"query": "{name[0]}0"}})\npage of {name[0]}0' for name in TRIO}
    assert [t.messages[1].content for t in rollout.leads] == [
        "Where?",
        f"Where?\n\n{told['ann']}",
        f"Where?\n\n{told['ann']}\n\n{told['bob']}",
    ]
    shown = [[m.content for m in t.messages if m.role == "tool"] for t in rollout.leads]
    again = 'ann: search({"query": "a1"})\npage of a1'
    assert shown == [["page of a0", told["bob"], told["cid"]], ["page of b0", told["cid"], again], []]
    assert [t.answer for t in rollout.leads] == ["b"] * 3, "the first answer is that of all"
    assert [t.num_turns for t in (ann, bob, cid)] == [2, 2, 1]
    assert all(t.valid for t in rollout.leads)


def test_a_record_is_exact_and_only_own_turns_are_actions() -> None:
    (rollout,) = play({"ann": asks("a"), "bob": asks("b", answers_in=1), "cid": asks("c")})
    for trajectory in rollout.leads:
        kinds = [span.kind for span in trajectory.spans]
        assert kinds == ["observation", "action"] * (len(kinds) // 2)
        assert trajectory.num_actions == sum(
            len(m.content.encode()) + 1 for m in trajectory.messages if m.role == "assistant"
        )


def test_who_breaks_a_rule_has_left_and_the_others_go_on() -> None:
    (rollout,) = play({"ann": lambda *_: "nothing legal", "bob": asks("b", answers_in=2), "cid": asks("c")})
    ann, bob, cid = rollout.leads
    assert ann.violations == [str(Violation.NO_ACTION)]
    assert (ann.num_turns, bob.num_turns, cid.num_turns) == (1, 3, 2)
    assert [t.answer for t in rollout.leads] == ["b"] * 3
    score_groups([group := Group(question("Where?", "b"), [rollout])], FakeTask(), TRIO)
    assert [rollout.scores[t.key.invocation].total for t in rollout.leads] == [0.0, 1.0, 1.0]
    assert rollout.scores[0].correct == 1.0, "the team was right, though who opened had left"
    assert "invalid: no action" in render(rollout)
    means = play_metrics(TRIO)
    observe_play(means, [group], TRIO)
    assert means.take()[0]["delegations_per_rollout"] == 0, "equals are not called"


def test_a_discussion_without_an_answer_ends_with_everybody_s_last_turn() -> None:
    (rollout,) = play({name: asks(name) for name in TRIO})
    assert [t.num_turns for t in rollout.leads] == [EQUAL.limits.turns] * 3
    assert [t.violations for t in rollout.leads] == [[str(Violation.NO_ANSWER_AT_END)]] * 3
    score_groups([Group(question("Where?"), [rollout])], FakeTask(), TRIO)
    assert [rollout.scores[i].total for i in range(3)] == [0.0] * 3


def test_each_equal_has_a_group_of_its_own_with_one_slot_a_rollout() -> None:
    speakers = {"ann": asks("a"), "bob": lambda _, turn, order: answer("b" * (1 + order[1])), "cid": asks("c")}
    group = Group(question("Where?", "bb"), play(speakers, rollouts=4))
    score_groups([group], FakeTask(), TRIO)
    for role, expected in (("ann", 4), ("bob", 4), ("cid", 0)):
        mode = AlignmentConfig("duplicate_drop", slots=8)
        aligned = align_role([group], role, ObjectiveConfig(), mode, seed=0, step=0)
        assert len(aligned.rows) == expected, "nobody but who spoke"
        assert sum(row.coefficient for row in aligned.rows) == pytest.approx(1.0 if expected else 0.0)
        if expected:
            best = max(aligned.rows, key=lambda row: row.advantage)
            assert best.key.rollout == 1
            assert best.advantage == pytest.approx(3**0.5), "(1 - 0.325) / std of one right of four"


def test_an_interrupted_discussion_is_nobody_s_fault() -> None:
    def broken(*_: object) -> str:
        raise OSError("the engine is gone")

    team, samplers = make_team(TRIO, {"ann": asks("a"), "bob": broken, "cid": asks("c")})
    with pytest.raises(OSError, match="engine"):
        team.play(PlayRequest([question("Where?")], step=0, rollouts=1))
    assert all(conversation.closed for sampler in samplers.values() for conversation in sampler.opened)


def test_equals_are_told_of_each_other_unless_the_team_file_says_what_they_are_told() -> None:
    roles = {name: replace(role, system_prompt=None) for name, role in TRIO.items()}
    team, _ = make_team(roles, {name: asks(name) for name in roles})
    assert "together with ann, cid, as equals" in team.seats["bob"].system
    assert "equals" not in make_team({"ann": replace(roles["bob"])}, {"ann": asks("a")})[0].seats["ann"].system


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ann": replace(EQUAL, discusses_with=["bob", "dan"])}, "discusses with 'dan', which is not a role"),
        ({"ann": replace(EQUAL, discusses_with=["bob"])}, r"2 roles have no caller, .*: \['ann', 'cid'\]"),
        ({"ann": replace(EQUAL, discusses_with=["bob", "cid", "bob"])}, "one of them is listed twice"),
        ({"bob": replace(EQUAL, discusses_with=["cid"])}, "only main, here 'ann', may"),
        ({"cid": replace(EQUAL, calls=["bob"])}, r"\['bob'\] are called"),
    ],
)
def test_what_is_no_discussion_is_refused(changes: Mapping[str, RoleConfig], problem: str) -> None:
    assert main_role(TRIO) == "ann"
    with pytest.raises(ConfigurationError, match=problem):
        main_role({**TRIO, **changes})
