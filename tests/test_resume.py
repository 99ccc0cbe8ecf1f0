"""A run that is killed and resumed: bitwise the adapters of one that never stopped, or every finished turn once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from mgrpo_lightning.persistence.checkpoints import checkpoints
from mgrpo_lightning.persistence.resume_log import held_out_log_path, training_log_path, whole_lines
from mgrpo_lightning.records.journal import read_groups
from tests.support.started import Started
from tests.support.teams import Team, release

STEPS = 3
STRAIGHT = ("--trainer.limit_val_batches=0", "--checkpoint.save_top_k=-1")


def kill(words: list[str], *, once: Callable[[], bool]) -> None:
    """Start a command and kill it."""
    process = Started(words)
    while not once():
        assert process.poll() is None, f"it ended before it could be killed: {process.said()}"
        time.sleep(0.02)
    process.kill()
    assert process.poll() == -signal.SIGKILL


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def adapters(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints" / f"step={STEPS:06d}.ckpt", weights_only=True)
    assert any(values["updates"] for values in state["roles"].values()), "nothing was learned"
    return {f"{role}/{n}": t for role, values in state["roles"].items() for n, t in values["adapter"].items()}


def sampled(journal: Path) -> list[object]:
    """All that a step's journal holds but for the seconds that calls took."""
    rollouts = [rollout for group in read_groups(journal) for rollout in group.rollouts]
    return [(t.key, t.spans, t.messages, rollout.scores) for rollout in rollouts for t in rollout.trajectories()]


def test_sigkill_and_resume_is_bitwise_the_uninterrupted_run(tmp_path: Path, root: Path, team: Team) -> None:
    """The one that never stopped starts Python itself."""
    words = [sys.executable, "-m", "mgrpo_lightning", *team.command("fit", tmp_path, "straight", *STRAIGHT)]
    subprocess.run(words, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    first = tmp_path / "killed" / "checkpoints" / "step=000001.ckpt"
    words = team.command("fit", tmp_path, "killed", *STRAIGHT, *team.hanging(tmp_path, since=first))
    kill(words, once=first.exists)
    release(tmp_path)
    assert not (tmp_path / "killed" / "checkpoints" / f"step={STEPS:06d}.ckpt").exists()
    Started([*words, "--ckpt_path=last"]).finish()

    straight, killed = adapters(tmp_path / "straight"), adapters(tmp_path / "killed")
    assert straight.keys() == killed.keys()
    assert all(torch.equal(straight[name], killed[name]) for name in straight)
    for step in range(STEPS):
        name = f"journal/step-{step:06d}.parquet"
        assert sampled(tmp_path / "straight" / name) == sampled(tmp_path / "killed" / name)


def test_a_run_killed_in_its_last_validation_goes_on_with_it(tmp_path: Path, team: Team) -> None:
    run = tmp_path / "run"
    path = held_out_log_path(run / "resume_logs", STEPS)
    options = ["--data.schedule=eager", "--trainer.limit_val_batches=1.0", "--data.validation.questions=6"]
    options += ["--data.validation.per_batch=3", "--data.validation.temperature=1.0"]
    words = team.command("fit", tmp_path, "run", *STRAIGHT, *options, *team.hanging(tmp_path, since=path))
    kill(words, once=lambda: lines(path) >= 6)
    release(tmp_path)
    assert max(checkpoints(run / "checkpoints")) == STEPS - 1
    kept = [record for file in (run / "resume_logs").glob("held-out*") for record in whole_lines(file)[0][1:]]
    said = Counter(tuple(record["value"]["ids"]) for record in kept if "ids" in record["value"])
    told = Started([*words, "--ckpt_path=last"]).finish()
    assert f"resuming step {STEPS - 1}:" in told, "the turns of the last step are not sampled again"
    assert f"resuming validation at step {STEPS}:" in told
    assert json.loads((run / "results.json").read_text())["after"]["questions"] == 6
    groups = read_groups(run / "journal" / f"validation-{STEPS:06d}.parquet")
    spans = [span for g in groups for r in g.rollouts for t in r.trajectories() for span in t.spans]
    assert said
    assert said <= Counter(span.ids for span in spans if span.kind == "action"), "a finished turn was lost"
    assert not (run / "resume_logs").exists(), "the last checkpoint has closed all steps"


def test_a_validate_that_is_killed_goes_on_when_it_is_given_again(tmp_path: Path, team: Team) -> None:
    run = tmp_path / "run"
    held_out = f"resume_logs/validate/*/{held_out_log_path(run, 0).name}"
    options = ["--data.schedule=eager", "--data.validation.questions=4", "--data.validation.per_batch=2"]
    options += ["--data.validation.repeats=2", "--data.validation.temperature=0.7"]
    words = team.command("validate", tmp_path, "run", *options, *team.hanging(tmp_path, since=tmp_path))
    kill(words, once=lambda: any(lines(path) >= 6 for path in run.glob(held_out)))
    release(tmp_path)
    (path,) = run.glob(held_out)
    kept = whole_lines(path)[0][1:]
    said = Counter(tuple(line["value"]["ids"]) for line in kept if "ids" in line["value"])
    assert said

    # What was played for whichever batch is taken up, though they are others now.
    again = [*words, "--data.validation.per_batch=4"]
    told = Started(again).finish()
    assert f"resuming the play kept in {path.parent}: {len(kept)} finished turns and calls" in told
    assert not (run / "resume_logs").exists(), "its results are on disk"
    record = json.loads((run / "results.json").read_text())["validate"]
    assert (record["questions"], record["repeats"]) == (4, 2)
    assert record["seconds_per_question"] * 4 > kept[-1]["seconds"], "that of the killed one counts too"
    groups = read_groups(run / "journal" / "validate" / "validation-000000.parquet")
    spans = [span for g in groups for r in g.rollouts for t in r.trajectories() for span in t.spans]
    assert said <= Counter(span.ids for span in spans if span.kind == "action"), "a finished turn was lost"


def test_a_run_killed_in_play_says_its_finished_turns_again(tmp_path: Path, team: Team) -> None:
    path = training_log_path(tmp_path / "run" / "resume_logs", 1)
    options = ("--data.schedule=eager", "--data.rollouts_per_query=8", *team.hanging(tmp_path, since=path))
    words = team.command("fit", tmp_path, "run", *STRAIGHT, *options)
    kill(words, once=lambda: lines(path) >= 10)
    release(tmp_path)
    assert not (tmp_path / "run" / "journal" / "step-000001.parquet").exists(), "killed too late to be in play"
    values = [record["value"] for record in whole_lines(path)[0][1:]]
    finished = [value for value in values if "ids" in value]
    assert finished
    told = Started([*words, "--ckpt_path=last"]).finish()
    assert f"resuming step 1: {len(values)} finished turns and calls are restored." in told
    groups = read_groups(tmp_path / "run" / "journal" / "step-000001.parquet")
    keys = Counter(t.key[:3] for g in groups for r in g.rollouts for t in r.trajectories("main"))
    assert keys == Counter((1, query, rollout) for query in range(2) for rollout in range(8))
    spans = [span for g in groups for r in g.rollouts for t in r.trajectories() for span in t.spans]
    times = Counter((span.ids, span.logprobs) for span in spans if span.kind == "action")
    said = Counter((tuple(turn["ids"]), tuple(turn["logprobs"])) for turn in finished)
    assert said <= times, "a finished turn was lost"
    assert not (tmp_path / "run" / "resume_logs").exists(), "the last checkpoint has closed all steps"
    Started(["replay", str(tmp_path / "run")]).finish()
