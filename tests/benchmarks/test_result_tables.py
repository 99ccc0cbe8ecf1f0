"""Tables of results: medians, ratios and their direction, several results in one table."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.faults import kill, stop
from benchmarks.paper import causes, mismatch, quickstart, smollm2
from benchmarks.speed import decoupled, scaling, store, trl


def lines(table: str) -> list[str]:
    """Without the two lines of the head."""
    return table.splitlines()[2:]


def step(seconds: float, peak: int) -> dict[str, Any]:
    parts = {"generation": seconds / 4, "update": seconds / 2, "step": seconds}
    return {"seconds": parts, "cpu": 2 * seconds, "peak": peak * 2**20}


def test_a_step_is_faster_by_the_median_of_the_ratios_within_a_repeat() -> None:
    found = {
        "22M": {"trl": [step(8, 100), step(16, 100), step(12, 100)], "ours": [step(4, 50), step(4, 20), step(4, 40)]}
    }
    (line,) = lines(trl.table(found))
    assert line == "| 22M | 3.00 / 6.00 / 12.00 | 1.00 / 2.00 / 4.00 | 3.00 | 3.00 | 100 | 40 | 0.40 |"


def test_each_further_arm_is_beside_the_first() -> None:
    tables = trl.table({"2M": {"a": [step(4, 8)], "b": [step(2, 4)]}}, {"22M": {"a": [step(6, 8)], "b": [step(2, 4)]}})
    assert [line.split(" | ")[3] for line in lines(tables)] == ["2.00", "3.00"]
    three = trl.table({"2M": {arm: [step(4, 8)] for arm in ("a", "b", "c")}})
    assert [part.split(" | ")[2] for part in three.split("\n\n")] == ["b, s", "c, s"]


def test_points_that_a_kind_of_run_lacks_are_left_out() -> None:
    one = {"one process, rounds": {"hits": {"by time": 5}, "runs": 2, "faults": {"lost": 0}}}
    apart = {
        "roles apart, rounds": {
            "hits": {"by time": 3, "mid segment": 4},
            "runs": 1,
            "faults": {"lost": 0, "mispaired": 1},
        }
    }
    assert kill.table(one, apart).splitlines() == [
        "| point | one process, rounds | roles apart, rounds |",
        "|---|---|---|",
        "| by time | 5 | 3 |",
        "| mid segment | - | 4 |",
        "| runs | 2 | 1 |",
        "| lost | 0 | 0 |",
        "| mispaired | - | 1 |",
    ]


def test_the_slowest_end_is_told() -> None:
    faults = {"left behind": 0, "wrong status": 1}
    result = {"hits": dict.fromkeys(stop.EVENTS, 8), "runs": 13, "seconds": [1.0, 6.16, 2.0], "faults": faults}
    assert lines(stop.table(result)) == ["| 8 | 8 | 8 | 8 | 8 | 13 | 0 | 1 | 6.2 s |"]


def held_out(share: float) -> dict[str, Any]:
    return {"exact_match": share, "questions": 100, "by_level": {"1 hop": {"exact_match": share}}}


def test_accuracies_are_medians_with_the_range_of_the_seeds_and_the_interval_of_one() -> None:
    seeds = [
        {"before": held_out(0.25), "after": held_out(after), "seconds": {"fit": 100 * after}}
        for after in (0.5, 0.4, 0.9)
    ]
    script = {"after": {"exact_match": 0.5, "questions": 100}}
    table, levels = quickstart.table(
        {"validation": {"team": seeds, "first_hit": [script]}},
        {"test": {"team": [{"before": held_out(0.0), "after": held_out(1.0)}]}},
    ).split("\n\n")
    assert lines(table) == [
        "| validation | team | 3 | 25.0% | 50.0% | 40.0% to 90.0% | 40.4% to 59.6% | 50 |",
        "| validation | first_hit | - | - | 50.0% | - | 40.4% to 59.6% | - |",
        "| test | team | 1 | 0.0% | 100.0% | 100.0% to 100.0% | 96.3% to 100.0% | - |",
    ]
    assert lines(levels) == ["| 1 hop | 25.0% | 50.0% |", "| all | 25.0% | 50.0% |"]


def test_causes_of_several_results_are_added_up() -> None:
    one = {"runs": 1, "before": {"right": 1, "misread": 1}, "after": {"right": 2}}
    table = causes.table(one, {**one, "before": {"misread": 2}})
    assert table.startswith("| 2 runs, 4 answers | before | after |")
    assert "| right | 25.0% | 100.0% |" in table
    assert "| misread | 75.0% | 0.0% |" in table


def test_roles_stand_beside_each_other() -> None:
    found = [
        {"numerics": "bf16", "temperature": 0.6, "role": role, "mean": mean, "max": 1.0}
        for role, mean in (("main", 0.25), ("searcher", 0.5))
    ]
    assert lines(mismatch.table(found)) == ["| bf16 | 0.6 | 2.50e-01 | 1.00e+00 | 5.00e-01 | 1.00e+00 |"]


def test_a_step_is_compared_with_the_first_arm_s() -> None:
    one = {"play": 3.0, "idle": 1.0, "update": 1.0}
    apart = {"main": {"play": 4.0, "idle": 3.0, "update": 1.0}, "searcher": {"play": 2.0, "idle": 1.0, "update": 2.0}}
    assert lines(decoupled.table({"coupled": {"all": one}, "decoupled": apart})) == [
        "| coupled | 4.00 | 1.00 | 3.00 | 1.00 | 25% |",
        "| decoupled | 5.00 | 1.25 | 4.00 / 2.00 | 1.00 / 2.00 | 60% / 25% |",
    ]


def test_what_was_varied_is_one_line() -> None:
    found = [{"varied": "K", "value": 2**n, "play": float(n), "update": 0.5, "tokens": 1} for n in (1, 2)]
    assert lines(scaling.table(found)) == ["| K | 2 / 4 | 1.00 / 2.00 | 0.50 / 0.50 |"]


def test_a_store_has_three_tables() -> None:
    tailed = {"writers": 64, "records": 1000, "records_per_second_per_writer": 12.4, "p50_ms": 7.44, "p99_ms": 20.0}
    tailed |= {"files_per_1000_records": 3.0, "bytes_per_record": 290.6}
    result = {"tailed": [tailed], "step": {"records": 345, "files": 2}, "count": 1_000_000, "large": {"written": 8.52}}
    tables = store.table(result).split("\n\n")
    assert [lines(table) for table in tables] == [
        ["| 64 | 1,000 | 12 | 7.4 | 20.0 | 3.0 | 291 |"],
        ["| 1,000,000 | 8.52 |"],
        ["| 345 | 2 |"],
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_a_try_has_the_seeds_that_all_tries_have(count: int) -> None:
    def one(seed: int, after: int) -> dict[str, Any]:
        return {"run": f"smollm2-{seed}", "right": {"a": [0, after], "b": [1, 1]}, "trained_tokens": 1, "hours": 1.0}

    first, *_, last = smollm2.TRIES
    table = smollm2.tries({first: [one(0, 0), one(1, 0)], last: [one(seed, 1) for seed in range(count)]})
    *_, end = lines(table)
    assert end.split(" | ")[4 : 6 + count] == ["50.0%", *["100.0%"] * (count + 1)]
