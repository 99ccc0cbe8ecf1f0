"""Crossplay plays the adapters it says, and its gap is what partners of one moment have beyond each one's own skill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paper.crossplay import draw, gap, grid
from benchmarks.paper.trained_team import TrainedTeam
from mgrpo_lightning.commands.run_command import main
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model

numbers = st.floats(0, 1)


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=5), numbers)
def test_skill_alone_has_no_gap_and_a_pact_shows_whole(skills: list[tuple[float, float]], pact: float) -> None:
    found = [[mine + theirs for _, theirs in skills] for mine, _ in skills]
    assert gap(found) == pytest.approx(0, abs=1e-9)
    for i, row in enumerate(found):
        row[i] += pact
    assert gap(found) == pytest.approx(pact, abs=1e-9)


def test_a_team_plays_with_the_adapters_of_any_kept_step(tmp_path: Path) -> None:
    team_file = write_team_file(tmp_path, make_tiny_model(tmp_path / "model"))
    main(
        [
            "fit",
            f"--config={team_file}",
            "--trainer.max_steps=2",
            "--checkpoint.save_top_k=-1",
            "--trainer.limit_val_batches=0",
        ]
    )
    team = TrainedTeam(tmp_path / "runs" / "toy")
    assert list(team.steps) == [0, 1, 2]
    moments = [team.steps[0], team.steps[2]]
    mixed = {"main": team.steps[2]["main"], "searcher": team.steps[0]["searcher"]}
    team.take(mixed)
    for role, policy in team.module.policies.items():
        for name, value in policy.adapter_state().items():
            assert torch.equal(value, mixed[role][name])
    (first, second) = (team.play(team.task.questions("validation")[:2], temperature=0) for _ in range(2))
    segments = [[t.segments for g in groups for t in g.rollouts[0].trajectories()] for groups in (first, second)]
    ids = [[[segment.ids for segment in each] for each in played] for played in segments]
    assert ids[0] == ids[1], "greedy"
    found = grid(team, moments, moments, team.task.questions("validation")[:2])
    assert [len(row) for row in found] == [2, 2]
    draw({"toy": (["a", "b"], found)}, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
