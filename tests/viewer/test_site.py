"""The data behind the page: every rollout once, curves and tables that add up, roles in processes as one tree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from mgrpo_lightning.commands.view import main
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.records.journal import write_groups
from mgrpo_lightning.records.ratios import write_ratios
from mgrpo_lightning.records.trajectory import Key, Score, Segment
from mgrpo_lightning.viewer.detail import read_play, reasons
from mgrpo_lightning.viewer.index import FAILED, INVALID, TRUNCATED
from mgrpo_lightning.viewer.journal_rows import Damaged, Row, read_rows
from mgrpo_lightning.viewer.site import Site
from mgrpo_lightning.viewer.sources import Source
from tests.viewer.runs import make_group, received, write_run


def test_every_rollout_stands_in_the_index_once_with_its_figures(tmp_path: Path) -> None:
    index = received(Site([Source(write_run(tmp_path / "run"))], live=True).index())
    columns = index["columns"]
    assert {len(values) for values in columns.values()} == {2 * 2 * 2 + 3}
    assert [play["slug"] for play in index["plays"]] == ["step-000000", "validation-000000", "step-000001"]
    assert columns["reward"][:4] == [0.0, 1.0, 0.1, 0.1]
    assert columns["marks"][:2] == [TRUNCATED | INVALID, 0]
    assert columns["calls"] == [1] * 11
    assert columns["tokens"][0] == 14
    assert columns["reward/searcher"] == columns["reward"]
    assert [question["level"] for question in index["questions"]] == ["1 hop"] * 3
    curves = {curve["name"]: curve["points"] for curve in index["curves"]}
    assert curves["main/reward"] == [[0, pytest.approx(0.3)], [1, pytest.approx(0.3)]]
    assert curves["main/zero-advantage groups"] == [[0, 0.5], [1, 0.5]]
    assert curves["searcher/expert"] == [[0, pytest.approx(0.3)], [1, pytest.approx(0.3)]]
    (held_out,) = index["held_out"]
    assert held_out["levels"] == {"1 hop": {"rollouts": 3, "right": 1.0, "undecided": 0}}
    assert index["live"]


def test_a_group_has_everything_about_its_rollouts(tmp_path: Path) -> None:
    site = Site([Source(write_run(tmp_path / "run"))], live=False)
    group = received(site.group(0, "step-000001", 0))
    bad, good = group["rollouts"]
    assert [t["role"] for t in good] == ["main", "searcher"]
    assert (good[0]["advantage"], bad[0]["advantage"], good[1]["parent"]) == (1.0, -1.0, 0)
    assert [reason["holds"] for reason in bad[0]["reasons"]] == [False, False]
    assert [reason["name"] for reason in bad[0]["reasons"]] == ["format", "correct"]
    assert good[0]["reasons"][1]["text"] == "'Mont Blanc' matches Mont Blanc"
    assert good[1]["reasons"][1] == {
        "name": "evidence",
        "holds": True,
        "text": "opened factbook/france (Geography: Elevation), reported 'Mont Blanc'",
    }
    seen, turn, shown, last = good[0]["spans"]
    assert (seen["text"], turn["text"], shown["text"]) == ("be good\n\nWhich peak?", "call: Which peak?", "Which peak?")
    assert turn["logprobs"] == [-0.5, -2.0]
    assert (last["version"], bad[0]["spans"][3]["truncated"]) == (1, True)
    assert good[0]["calls"][0]["invocation"] == 1
    assert site.group(0, "step-000001", 9) is site.group(0, "step-9", 0) is site.group(1, "step-000001", 0) is None


def test_ratios_of_an_update_stand_at_their_tokens(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_ratios(run / "journal", 1, {"main": {Key(0, 0, 1, 0): torch.tensor([0.125, -0.5, 2.0])}})
    (run / "journal" / "ratios" / "000007.parquet").write_bytes(b"torn")
    site = Site([Source(run)], live=False)
    bad, good = received(site.group(0, "step-000000", 0))["rollouts"]
    assert [span.get("ratios") for span in good[0]["spans"]] == [None, [0.125, -0.5], None, [2.0]]
    assert not any("ratios" in span for t in (good[1], *bad) for span in t["spans"]), "of what moved no adapter"
    assert "ratios" not in received(site.group(0, "step-000001", 0))["rollouts"][1][0]["spans"][1]


def test_roles_of_several_processes_are_one_tree(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "store").mkdir(parents=True)
    for role, played in (("main", ["main"]), ("searcher", ["sub"])):
        write_groups(run / role / "journal", 0, [make_group(0, 0, (1.0, 0.1), played=played)], "train")
    source = Source(run)
    ((play, paths),) = source.files().items()
    assert (play.slug, len(paths)) == ("step-000000", 2)
    (group,) = read_play(paths, lambda path, problem: pytest.fail(problem))
    for rollout in group.rollouts:
        assert not any(t.elsewhere for t in rollout.trajectories())
    site = Site([source], live=False)
    assert received(site.index())["columns"]["tokens"] == [14, 14]
    rollout = received(site.group(0, "step-000000", 0))["rollouts"][0]
    assert [t["elsewhere"] for t in rollout] == [False, False]


def test_ranks_queries_and_later_validations_are_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=1, validation=False)
    write_groups(run / "journal", 0, [make_group(0, 7, (0.1,))], "train")
    write_groups(run / "journal" / "validate", 5, [make_group(5, 0, (1.0,))], "validate")
    index = received(Site([Source(run)], live=False).index())
    assert [play["slug"] for play in index["plays"]] == ["step-000000", "validate-validation-000005"]
    assert index["columns"]["query"] == [0, 0, 1, 1, 7, 0]


def test_new_steps_change_the_version_and_nothing_else_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", steps=1)
    site = Site([Source(run)], live=True)
    before = received(site.index())
    assert received(site.state()) == {"version": before["version"]}
    read: list[int] = []

    def counted(paths: Sequence[Path], damaged: Damaged) -> list[Row]:
        read.append(len(paths))
        return read_rows(paths, damaged)

    monkeypatch.setattr("mgrpo_lightning.viewer.site.read_rows", counted)
    write_groups(run / "journal", 1, [make_group(1, 0, (1.0,))], "train")
    assert received(site.state())["version"] != before["version"]
    assert len(received(site.index())["columns"]["run"]) == len(before["columns"]["run"]) + 1
    assert read == [1]


def test_a_folder_without_a_journal_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no journal"):
        Source.found(tmp_path)


def test_a_folder_of_runs_is_each_of_them_and_never_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name, steps=1)
    (tmp_path / "empty").mkdir()
    sources = Source.found(tmp_path)
    assert [source.name for source in sources] == ["one", "two"]
    assert [len(paths) for source in sources for paths in source.files().values()] == [1, 1, 1, 1]
    assert [source.name for source in Source.found(tmp_path / "two")] == ["two"]


def test_a_role_that_begins_later_is_seen(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    write_groups(tmp_path / "main" / "journal", 0, [make_group(0, 0, (1.0,))], "train")
    (source,) = Source.found(tmp_path)
    write_groups(tmp_path / "searcher" / "journal", 0, [make_group(0, 0, (1.0,))], "train")
    assert [len(paths) for paths in source.files().values()] == [2]


def test_what_an_update_logs_is_news(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    site = Site([Source(run)], live=True)
    seen = {site.version()}
    write_ratios(run / "journal", 1, {"main": {Key(1, 0, 1, 0): torch.tensor([0.1, 0.2, 0.3])}})
    seen.add(site.version())
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events").write_bytes(b"")
    assert len({*seen, site.version()}) == 3


def test_a_run_that_diverged_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    group = make_group(2, 0, (1.0,))
    group.rollouts[0].subs[0].calls[0].arguments["query"] = math.inf
    write_groups(run / "journal", 2, [group], "train")
    curves = {"main/gradient norm": [(0, 0.5), (1, math.nan)]}
    monkeypatch.setattr("mgrpo_lightning.viewer.site.phase_curves", lambda folders, damaged: curves)
    site = Site([Source(run)], live=False)
    assert {"run": 0, "name": "main/gradient norm", "points": [[0, 0.5], [1, None]]} in received(site.index())["curves"]
    rollout = received(site.group(0, "step-000002", 0))["rollouts"][0]
    assert rollout[1]["calls"][0]["arguments"]["query"] is None


def test_what_a_role_is_rewarded_for_is_shown_also_where_it_is_never_earned(tmp_path: Path) -> None:
    write_groups(tmp_path / "journal", 0, [make_group(0, 0, (0.0, 0.0))], "train")
    rewards = {"main": {"format": 0.1, "correct": 0.9}, "searcher": {"format": 0.1, "correct_main": 0.4, "expert": 0.5}}
    roles = {role: {"reward": weights} for role, weights in rewards.items()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"roles": roles}}}), encoding="utf-8")
    site = Site([Source(tmp_path)], live=False)
    curves = {curve["name"]: curve["points"] for curve in received(site.index())["curves"]}
    assert curves["main/correct"] == curves["main/format rate"] == [[0, 0.0]]
    assert "main/expert" not in curves, "what a role is not rewarded for has no curve"
    main, sub = received(site.group(0, "step-000000", 0))["rollouts"][0]
    assert main["score"]["parts"] == {"format": 0.0, "correct": 0.0}
    assert sub["score"]["parts"] == {"format": 1.0, "correct_main": 0.0, "expert": 0.0}


def test_reasons_never_contradict_the_reward() -> None:
    group = make_group(0, 0, (1.0,))
    main, sub = group.rollouts[0].main, group.rollouts[0].subs[0]
    reason = reasons(group.question, main, Score(1.0, correct=0.0))[1]
    assert reason["holds"] is False
    assert reason["text"] == "'Mont Blanc' matches Mont Blanc, scored 0"
    reason = reasons(group.question, replace(main, answer="White Mountain"), Score(1.0, correct=1.0))[1]
    assert reason["holds"] is True
    reason = reasons(group.question, main, Score(1.0, failed=True))[1]
    assert reason["holds"] is None
    assert "is undecided" in reason["text"]
    asked_by_another_rule = reasons(group.question, replace(sub, calls=[], answer="France"), Score(1.0, expert=1.0))
    assert [one["name"] for one in asked_by_another_rule] == ["format"]


def test_turns_of_an_older_adapter_are_marked(tmp_path: Path) -> None:
    group = make_group(3, 0, (1.0,))
    sub = group.rollouts[0].subs[0]
    sub.segments = [Segment([replace(span, version=1) if span.kind == "action" else span for span in sub.spans])]
    write_groups(tmp_path / "journal", 3, [group], "train")
    rollout = received(Site([Source(tmp_path)], live=False).group(0, "step-000003", 0))["rollouts"][0]
    assert [t["versions"] for t in rollout] == [[], [1]]


def test_an_export_replaces_a_page_of_ours_and_nothing_else(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "page"
    for _ in range(2):
        main(["--out", str(out), str(run)])
    assert (out / "index.html").is_file()
    assert received((out / "data" / "0" / "step-000001" / "1.js").read_text(encoding="ascii"))["rollouts"]
    (mine := tmp_path / "mine").mkdir()
    (mine / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="not a page of mgrpo view"):
        main(["--out", str(mine), str(run)])
    assert (mine / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    (mine / "data").mkdir()
    (mine / "data" / "index.js").write_text("export default {};", encoding="utf-8")
    (out / "CNAME").write_text("lab.example", encoding="utf-8")
    for theirs in (mine, out):
        with pytest.raises(ConfigurationError, match="not a page of mgrpo view"):
            main(["--out", str(theirs), str(run)])
    assert (out / "CNAME").exists()


def test_marks_are_of_any_trajectory(tmp_path: Path) -> None:
    group = make_group(0, 0, (1.0,))
    rollout = group.rollouts[0]
    rollout.subs[0].violations = ["no action"]
    score = rollout.scores[1]
    rollout.scores[1] = type(score)(score.format, failed=True)
    write_groups(tmp_path / "journal", 0, [group], "train")
    assert received(Site([Source(tmp_path)], live=False).index())["columns"]["marks"] == [INVALID | FAILED]


def test_a_folder_for_others_has_no_encrypted_question(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    group = make_group(5, 0, (0.0, 1.0), text="SECRET")
    group.question = replace(group.question, metadata={"encrypted": "yes"})
    write_groups(run / "journal", 5, [group], "validate")
    with pytest.raises(ConfigurationError, match=r"validation-000005 asks .* encrypted .*HINT: .* without --out"):
        main(["--out", str(tmp_path / "page"), str(run)])
    assert not (tmp_path / "page").exists()
    assert not any("SECRET" in path.read_text() for path in tmp_path.rglob("*.js")), "no part of it stays"
    main(["--encrypted", "--out", str(tmp_path / "page"), str(run)])
    assert "SECRET" in (tmp_path / "page" / "data" / "index.js").read_text()
