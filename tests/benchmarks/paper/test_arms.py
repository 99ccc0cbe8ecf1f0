"""The arms are teams that exist and differ as they should; their records and measures add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper import arms
from benchmarks.paper.arms_measures import deepest_drop, for_a_right_answer, p_value, rollouts_until, share, spikes
from benchmarks.paper.arms_picture import draw
from benchmarks.paper.arms_record import record
from benchmarks.paper.arms_tables import accuracy_table, parts_table, stability_table
from mgrpo_lightning.commands.fit import MgrpoCLI, make_cli
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.records.question import Evidence, Question
from mgrpo_lightning.roles.sharing import adapter_owners
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model

Parse = Callable[..., MgrpoCLI]


@pytest.fixture
def parse(root: Path, monkeypatch: pytest.MonkeyPatch) -> Parse:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    return lambda *options: make_cli([*options, "--trainer.accelerator=cpu"], run=False)


@pytest.mark.parametrize("arm", arms.ARMS)
def test_an_arm_is_a_second_stage_of_its_team(arm: str, parse: Parse) -> None:
    start = arms.STARTS[arms.ARMS[arm].start]
    adapters = arms.starting_from(start, Path("given"))
    stage_2 = arms.configs("arms/stage_2")
    cli = parse(*start.team, *arms.ARMS[arm].changes, *stage_2, *arms.EVALUATION, *adapters)
    owners = adapter_owners(cli.model.roles)
    assert {role: c.adapter.path for role, c in cli.model.roles.items()} == {r: f"given/{o}" for r, o in owners.items()}
    validation = cli.datamodule.validation
    assert (validation.split, validation.questions, cli.trainer.val_check_interval) == ("test", 500, 6)
    assert cli.datamodule.selection.at_most == 0.5
    windows = {role.limits.context for role in cli.model.roles.values()}
    assert windows == {512}, "every policy of every arm has the same window"


def test_what_an_arm_changes_is_what_it_is_called(parse: Parse) -> None:
    plain = parse(*arms.STARTS["team"].team).model.roles
    changed = {
        arm: parse(*arms.STARTS[one.start].team, *one.changes).model.roles
        for arm, one in arms.ARMS.items()
        if one.start == "team"
    }
    main_, searcher = plain["main"], plain["searcher"]
    reward = searcher.weights
    expected = {
        "main_only": (main_, replace(searcher, trainable=False)),
        "sub_only": (replace(main_, trainable=False), searcher),
        "free_running": (main_, replace(searcher, queue=64)),
        "reward_outcome": (main_, replace(searcher, reward=replace(reward, correct_main=0.9, expert=0.0))),
        "reward_expert": (main_, replace(searcher, reward=replace(reward, correct_main=0.0, expert=0.9))),
        "no_expert": (main_, replace(searcher, reward=replace(reward, expert=0.0))),
    }
    for arm, roles in changed.items():
        assert (roles["main"], roles["searcher"]) == expected.get(arm, (main_, searcher)), arm
    printed = parse(*arms.STARTS["team"].team, *arms.ARMS["duplicate_drop"].changes).datamodule
    assert (printed.alignment.mode, printed.alignment.slots) == ("duplicate_drop", 8)


def test_stages_and_the_specialists_are_teams_too(parse: Parse) -> None:
    for name, start in arms.STARTS.items():
        first = parse(*start.team, *arms.configs("arms/stage_1"))
        assert {question.level for question in first.datamodule.task.questions("train")} == {"1 hop"}, name
        assert parse(*start.team, *arms.configs("arms/probe")).datamodule.validation.split == "train"
        if start.warm_start:
            warm = parse(*start.warm_start)
            assert warm.datamodule.source == "demonstrations"
            assert {role.objective.kind for role in warm.model.roles.values()} == {"supervised"}
            assert {role.adapter.path for role in warm.model.roles.values()} == {None}
    team = arms.configs("quickstart", "arms/specialists")
    assert parse(*team).model.roles["comparer"].slots == 2
    warm = parse(*team, *arms.configs("warm_start", "arms/specialists_warm_start"))
    assert {role.objective.kind for role in warm.model.roles.values()} == {"supervised"}
    assert {q.level for q in warm.datamodule.task.questions("train")} == {"1 hop", "comparison"}


def test_every_config_of_the_arms_is_parsed_here(root: Path) -> None:
    named = {word for one in arms.ARMS.values() for word in one.changes}
    named |= {word for start in arms.STARTS.values() for word in (*start.team, *start.warm_start)}
    others = {"stage_1", "stage_2", "probe", "specialists", "specialists_warm_start"}
    there = {f"configs/arms/{path.name}" for path in (root / "configs" / "arms").glob("*.yaml")}
    assert there <= named | {f"configs/arms/{name}.yaml" for name in others}


def test_a_record_is_read_off_a_run_folder(tmp_path: Path) -> None:
    team = write_team_file(tmp_path, make_tiny_model(tmp_path / "model"), val_check_interval=2, num_sanity_val_steps=-1)
    main(["fit", f"--config={team}"])
    found = record(tmp_path / "runs" / "toy")
    assert found["rollouts_per_step"] == 4
    assert [entry["step"] for entry in found["validations"]] == [0, 2, 4]
    assert all(len(entry["right"]) == 4 and entry["turns"] >= 4 for entry in found["validations"])
    assert {name: set(value) for name, value in found["steps"].items() if isinstance(value, dict)} == {
        name: {"main", "searcher"} for name in ("reward", "grad_norm", "zero_advantage_groups")
    }
    for values in (found["steps"]["tokens"], found["steps"]["seconds"], found["steps"]["grad_norm"]["searcher"]):
        assert len(values) == 4
        assert min(values) > 0


def one(arm: str, seed: int, *rights: str, correct: tuple[float, ...] = (0.2, 0.4, 0.6, 0.4)) -> dict[str, Any]:
    """A record of a run of four steps, with validations at equal distances."""
    steps = {
        "correct": list(correct),
        "tokens": [100.0] * 4,
        "seconds": [2.0] * 4,
        "grad_norm": {"main": [1.0, 1.0, 1.0, 3.5], "searcher": [2.0, 2.0, 7.0, 2.0]},
        "zero_advantage_groups": {"main": [0.5] * 4, "searcher": [0.0] * 4},
    }
    distance = 4 // (len(rights) - 1)
    validations = [
        {"step": i * distance, "right": right, "tokens": 1200, "turns": 24, "seconds": 6.0}
        for i, right in enumerate(rights)
    ]
    return {"arm": arm, "seed": seed, "rollouts_per_step": 10, "steps": steps, "validations": validations}


def test_measures_by_hand() -> None:
    records = [one("a", 0, "0000", "1000", "1110"), one("a", 1, "0000", "0001", "1111")]
    assert share(records[0], -1) == 0.75
    assert share(records[0], -1, [0, 3]) == 0.5
    assert rollouts_until(records, 0.25) == 20
    assert rollouts_until(records, 0.5) == pytest.approx(20 + 20 * 0.25 / 0.625)
    assert (rollouts_until(records, 0.0), rollouts_until(records, 0.9)) == (0.0, None)
    assert deepest_drop([0.9, 0.6, 0.3, 0.3, 0.0, 0.3, 0.6]) == pytest.approx(0.4)
    assert spikes(records[0]) == 2
    assert for_a_right_answer(records, "turns") == 48 / 7
    others = [one("b", 1, "0000", "0000", "0000"), one("b", 2, "1111", "1111", "1111")]
    assert p_value(records, others) == 2 / 2**4, "only seed 1 has a partner"
    assert p_value(records, others[1:]) == 1.0


def test_tables_and_picture(tmp_path: Path) -> None:
    found = {
        "co_training": [one("co_training", s, "0000", "1100", "1111") for s in (0, 1)],
        "main_only": [one("main_only", 0, "0000", "1000", "1100")],
    }
    hop = Evidence("factbook/france", "Geography: Elevation", "Mont Blanc", "France", "highest_point")
    questions = [Question(f"q{i}", "?", ("a",), f"{1 + i // 2} hop", (hop,) * (1 + i // 2)) for i in range(4)]
    assert accuracy_table(found, "co_training").splitlines()[2:] == [
        "| co_training | 2 | 0.0% | 100.0% | 100.0% to 100.0% | - |",
        "| main_only | 1 | 0.0% | 50.0% | 50.0% to 50.0% | 0.5 |",
    ]
    assert parts_table(found, questions).splitlines()[3].startswith("| main_only | 100.0% | 0.0% |")
    line = stability_table(found).splitlines()[2]
    assert line == "| co_training | 20 | 0.000 | 0.000 | 25% | 2.0 | 6.0 | 300 | 1.50 |"
    draw(found, tmp_path / "arms.png")
    assert (tmp_path / "arms.png").read_bytes().startswith(b"\x89PNG")
