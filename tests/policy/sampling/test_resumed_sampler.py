"""Recorded turns are said again bit for bit, and what is sampled behind them is what would have been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.persistence.resume_log import ResumeLog
from mgrpo_lightning.policy.sampling.resumed_sampler import ResumedSampler
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.roles.config import OptimizerConfig, SamplingConfig
from tests.policy.sampling.player import MakePolicy, Spans, play, play_agent

NAMES = range(4)


def remembered(make_policy: MakePolicy, path: Path, *, temperature: float = 1.0) -> tuple[list[Spans], int]:
    """The spans of four forked agents, and how many turns were sampled rather than said again."""
    policy = make_policy(dtype=torch.float64)
    scheduler = Scheduler("eager")
    resume_log = ResumeLog(path, policy.fingerprint())
    sampler = ResumedSampler(TransformersSampler(policy, scheduler), resume_log)
    prompt = policy.chat.open("system prompt", "question")
    conversations = sampler.open(prompt, (0,)).fork(len(NAMES))
    agents = [
        play_agent(policy, c, prompt, n, temperature=temperature) for c, n in zip(conversations, NAMES, strict=True)
    ]
    spans = scheduler.play(agents)
    resume_log.close()
    return spans, len(path.read_bytes().splitlines()) - 1 - resume_log.found


@pytest.mark.parametrize("kept", [0, 1, 5, 11, 12])
def test_a_play_goes_on_behind_the_recorded_turns(make_policy: MakePolicy, tmp_path: Path, kept: int) -> None:
    first, sampled = remembered(make_policy, path := tmp_path / "step")
    assert sampled == 3 * len(NAMES)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: 1 + kept]))
    again, sampled = remembered(make_policy, path)
    assert sampled == 3 * len(NAMES) - kept
    assert [[ids for _, ids, _ in spans] for spans in again] == [[ids for _, ids, _ in spans] for spans in first]
    exact = 0
    for ours, theirs in zip(again, first, strict=True):
        for (_, _, some), (_, _, others) in zip(ours, theirs, strict=True):
            torch.testing.assert_close(torch.tensor(some), torch.tensor(others), rtol=0, atol=1e-9)
            exact += bool(some) and some == others
    assert exact >= kept


def test_without_a_memory_the_same_is_said(make_policy: MakePolicy, tmp_path: Path) -> None:
    policy = make_policy(dtype=torch.float64)
    scheduler = Scheduler("eager")
    resume_log = ResumeLog(tmp_path / "step", "")
    sampler = ResumedSampler(TransformersSampler(policy, scheduler), resume_log)
    prompt = policy.chat.open("system prompt", "question about 0")
    (spans,) = scheduler.play([play_agent(policy, sampler.open(prompt, (0, 0)), prompt, 2)])
    (plain,) = play(policy, "eager", names=[2], fork=False)
    assert [ids for _, ids, _ in spans][1:] == [ids for _, ids, _ in plain][1:]


def test_other_settings_or_another_adapter_sample_anew(make_policy: MakePolicy, tmp_path: Path) -> None:
    remembered(make_policy, path := tmp_path / "step")
    _, sampled = remembered(make_policy, path, temperature=0.7)
    assert sampled == 3 * len(NAMES)
    policy = make_policy(dtype=torch.float64)
    before = policy.fingerprint()
    with torch.no_grad():
        next(iter(policy.named_parameters().values())).add_(1e-7)
    assert policy.fingerprint() != before
    assert ResumeLog(path, policy.fingerprint()).found == 0


def test_how_a_role_learns_is_no_matter_of_its_turns(make_policy: MakePolicy) -> None:
    policy = make_policy(dtype=torch.float64)
    before = policy.fingerprint()
    policy.config = replace(policy.config, optimizer=OptimizerConfig(lr=0.5), objective=ObjectiveConfig(kl=0.1))
    assert policy.fingerprint() == before
    policy.config = replace(policy.config, sampling=SamplingConfig(temperature=0.5))
    assert policy.fingerprint() != before
