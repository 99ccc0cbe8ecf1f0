from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mgrpo_lightning.callbacks.tables import accuracy_table, figures_table
from tests.callbacks.fakes import make_record


def cells(table: Table) -> list[list[str]]:
    """The table's head and rows as text."""
    console = Console(width=200, record=True, quiet=True)
    console.print(table)
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_before_and_after_stand_side_by_side_with_the_gain_in_points() -> None:
    assert cells(accuracy_table({"before": make_record(0, 0.25), "after": make_record(36, 0.9)})) == [
        ["level", "questions", "before", "after", "gain"],
        ["1", "200", "12.5%", "45.0%", "+32.5"],
        ["2", "100", "6.2%", "22.5%", "+16.2"],
        ["all", "300 (2 answers undecided)", "12.5%", "45.0%", "+32.5"],
    ]


def test_one_run_has_no_gain() -> None:
    assert cells(accuracy_table({"validate": make_record(36, 0.5)}))[0] == ["level", "questions", "validate"]


def test_a_level_that_one_run_lacks_is_a_dash() -> None:
    before = make_record(0, 0.25)
    del before["by_level"]["2"]
    assert cells(accuracy_table({"before": before, "after": make_record(36, 0.9)}))[2] == [
        "2",
        "100",
        "-",
        "22.5%",
        "-",
    ]


def test_what_nothing_could_be_decided_of_is_a_dash() -> None:
    record = make_record(36, 0.5) | {"accuracy": None, "majority@5": None}
    record["by_level"]["1"]["accuracy"] = None
    runs = {"before": make_record(0, 0.25), "after": record}
    assert cells(accuracy_table(runs))[1:] == [
        ["1", "200", "12.5%", "-", "-"],
        ["2", "100", "6.2%", "12.5%", "+6.2"],
        ["all", "300 (2 answers undecided)", "12.5%", "-", "-"],
    ]
    assert ["majority@5", "6.2%", "-"] in cells(figures_table(runs))


def test_other_parts_follow_the_levels_and_a_judge_says_how_often_it_agrees() -> None:
    record = make_record(36, 0.5) | {"by_language": {"en": {"questions": 300, "accuracy": 0.5}}}
    assert [row[0] for row in cells(accuracy_table({"validate": record}))] == ["level", "1", "2", "language en", "all"]
    judged = make_record(36, 0.5) | {"judge": {"judged": 40.0, "unmatched_right": 0.25}}
    shown = cells(figures_table({"validate": judged}))
    assert ["right for the judge, not for the rule", "25.0% of answers that match no rule"] in shown
    assert "judge and rule agree" not in [row[0] for row in shown]
    audited = make_record(36, 0.5) | {"judge": {"judged": 40.0, "agreement": 0.9}}
    assert ["judge and rule agree", "90.0% of 40 judged answers"] in cells(figures_table({"validate": audited}))


def test_the_other_figures_name_every_role() -> None:
    assert cells(figures_table({"validate": make_record(36, 0.5)})) == [
        ["metric", "validate"],
        ["pass@5", "50.0%"],
        ["majority@5", "12.5%"],
        ["undecided answers", "2"],
        ["exact match", "50.0%"],
        ["token F1", "0.500"],
        ["GAIA rule", "50.0%"],
        ["format rate, main", "90.0%"],
        ["format rate, searcher", "-"],
        ["failed calls, searcher", "25.0%"],
        ["delegations per rollout", "1.50"],
        ["calls per rollout", "4.25"],
        ["tokens per rollout", "412"],
        ["seconds per question", "2.35"],
    ]
