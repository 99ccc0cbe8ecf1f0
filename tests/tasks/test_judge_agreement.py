"""What judge and rule say of the same answers: counted, logged, and never a reason to lose a right answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.errors import ConfigurationError, ScoringError
from mgrpo_lightning.modules.evaluation import Evaluation
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.jsonl import JsonlTask
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tasks.judge_agreement import CASES, Agreement, agreement_figures
from tests.agents.test_question_scores import QUESTION as ANOTHER
from tests.agents.test_question_scores import group
from tests.callbacks.fakes import ROLES
from tests.support.chat_server import Server, failed, said
from tests.support.toy import held_out

QUESTION = Question("q", "Which river?", ("Danube",))


def make_task(folder: Path, judge: Judge) -> JsonlTask:
    (path := folder / "q.jsonl").write_text(json.dumps({"question": "Which river?", "answer": "Danube"}))
    return JsonlTask(str(path), judge=judge)


@given(st.lists(st.sampled_from(CASES), min_size=1, max_size=40))
def test_figures_of_any_answers(cases: list[tuple[bool, bool]]) -> None:
    agreement = Agreement()
    for rule, judge in cases:
        agreement.add(rule, judge)
    counts = agreement.take()
    assert agreement.take() == [0, 0, 0, 0, 0], "from now on"
    found, n = agreement_figures(counts), len(cases)
    same = sum(rule == judge for rule, judge in cases) / n
    assert found["judged"] == n
    unmatched = [judge for rule, judge in cases if not rule]
    assert found.get("unmatched_right") == (pytest.approx(sum(unmatched) / len(unmatched)) if unmatched else None)
    if len(unmatched) == n:
        assert set(found) == {"judged", "unmatched_right"}
        return
    assert found["agreement"] == pytest.approx(same)
    assert found["agreement"] + found["judge_only"] + found["rule_only"] == pytest.approx(1)
    rules, judges = (sum(case[i] for case in cases) / n for i in (0, 1))
    chance = rules * judges + (1 - rules) * (1 - judges)
    if chance < 1:
        assert found["kappa"] == pytest.approx((same - chance) / (1 - chance))
    else:
        assert "kappa" not in found


def test_no_answer_no_figure() -> None:
    assert agreement_figures([0, 0, 0, 0, 0]) == {}


@pytest.mark.parametrize("audit", [0.0, 0.1, 1.0])
def test_figures_are_those_of_the_population_and_not_of_what_was_audited(
    audit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2000 matches, nine of ten right for the judge too, and 1000 other answers, one of five right for it."""

    async def correct(self: Judge, question: str, accepted: Sequence[str], answer: str) -> bool:
        kind, number = answer.split()
        return int(number) % 10 < (9 if kind == "match" else 2)

    monkeypatch.setattr(Judge, "correct", correct)
    judge = Judge("http://127.0.0.1:9/v1", "m", audit=audit)

    async def decide_all() -> None:
        for kind, count in (("match", 2000), ("other", 1000)):
            for number in range(count):
                await judge.decide("Which?", ["it"], f"{kind} {number}", matched=kind == "match")

    asyncio.run(decide_all())
    found = agreement_figures(judge.agreement.take())
    assert found["unmatched_right"] == pytest.approx(0.2)
    if not audit:
        assert found == {"judged": 1000, "unmatched_right": found["unmatched_right"]}
        return
    assert found["judged"] == pytest.approx(1000 + 2000 * audit, rel=0.05)
    chance = 2 / 3 * 2 / 3 + 1 / 3 * 1 / 3
    population = {"agreement": 2600 / 3000, "rule_only": 200 / 3000, "judge_only": 200 / 3000}
    population["kappa"] = (population["agreement"] - chance) / (1 - chance)
    for name, value in population.items():
        assert found[name] == pytest.approx(value, abs=0.02 if audit < 1 else 1e-9), name


def test_an_audit_asks_about_matches_too_and_the_rule_s_word_stands(server: Server, tmp_path: Path) -> None:
    task = make_task(tmp_path, Judge(server.url, "m", audit=1.0))
    server.replies = [said("correct: no"), said("correct: yes"), said("correct: no")]
    scores = [asyncio.run(task.correct(QUESTION, answer)) for answer in ("Danube", "the Donau", "Rhine", " ", None)]
    assert scores == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert task.agreement is not None
    judged, *cases = task.agreement.take()
    assert judged == 3
    assert dict(zip(CASES, cases, strict=True)) == {
        **{(True, True): 0, (True, False): 1, (False, True): 1, (False, False): 1}
    }


def test_without_an_audit_a_match_costs_no_call(server: Server, tmp_path: Path) -> None:
    task = make_task(tmp_path, Judge(server.url, "m"))
    assert asyncio.run(task.correct(QUESTION, "danube.")) == 1.0
    assert server.seen == []
    with pytest.raises(ConfigurationError, match=r"audit is 1\.5"):
        Judge(server.url, "m", audit=1.5)


def test_a_share_is_audited_and_always_the_same_answers() -> None:
    judge, again = (Judge("http://127.0.0.1:9/v1", "m", audit=0.3) for _ in range(2))
    audited = [judge._audits("Which?", f"answer {i}") for i in range(1000)]
    assert 250 < sum(audited) < 350
    assert audited == [again._audits("Which?", f"answer {i}") for i in range(1000)]


def test_an_audit_that_fails_takes_nothing_from_a_match(server: Server, tmp_path: Path) -> None:
    task = make_task(tmp_path, Judge(server.url, "m", audit=1.0, attempts=1))
    server.replies = [failed(500)]
    assert asyncio.run(task.correct(QUESTION, "Danube")) == 1.0
    with pytest.raises(ScoringError):
        asyncio.run(task.correct(QUESTION, "Rhine"))
    assert task.agreement is not None
    assert sum(task.agreement.take()) == 0


def test_an_evaluation_reports_what_was_said_during_it() -> None:
    agreement = Agreement()
    evaluation = Evaluation(ROLES, [ANOTHER])
    for case in ((False, True), (False, False), (False, False), (True, True)):
        agreement.add(*case)
        evaluation.observe(held_out([group("right")], agreement=agreement.counts))
    rates, record = evaluation.finish(0, torch.device("cpu"))
    assert record["judge"] == {
        **{"judged": 4, "unmatched_right": pytest.approx(1 / 3)},
        **{"agreement": 0.75, "judge_only": 0.25, "rule_only": 0, "kappa": 0.5},
    }
    assert rates["judge/agreement"] == 0.75
    unjudged = Evaluation(ROLES, [ANOTHER])
    unjudged.observe(held_out([group("right")]))
    assert "judge" not in unjudged.finish(0, torch.device("cpu"))[1]
