"""What ``mgrpo doctor`` says of a policy: good as it is, bad where sampling changes it or samples from another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mgrpo_lightning.commands import doctor
from mgrpo_lightning.policy import loading, supported
from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.roles.config import LimitsConfig, RoleConfig
from tests.policy.architectures import make_tiny, tiny_config
from tests.policy.sampling.player import MakePolicy


def test_a_base_that_sampling_changes_is_bad(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(quantization="nf4")
    assert doctor.gradient_line(policy).good
    sample = doctor._sample

    def sample_and_spoil(policy: Any) -> Any:
        policy.base.model.get_input_embeddings().weight.mul_(1.1)
        return sample(policy)

    monkeypatch.setattr(doctor, "_sample", sample_and_spoil)
    line = doctor.gradient_line(policy)
    assert not line.good
    assert "quantization: none" in line.fix


def test_a_sampler_with_other_numbers_is_bad(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(quantization="nf4")
    assert doctor.mismatch_line(policy).good

    def colder(*args: Any, temperature: float, **options: Any) -> torch.Tensor:
        return action_logprobs(*args, temperature=temperature * 0.8, **options)

    monkeypatch.setattr(doctor, "action_logprobs", colder)
    line = doctor.mismatch_line(policy)
    assert not line.good
    assert "dense_copy: false" in line.fix


def test_a_base_that_goes_wrong_beyond_a_length_is_bad_at_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions that follow the longest row of a pass, past the checks that would refuse them."""
    switch = 256
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0}
    folder = make_tiny(tiny_config("llama", rope_parameters=rope, max_position_embeddings=switch), tmp_path)
    monkeypatch.setattr(supported, "_length_dependent", lambda model: [])
    monkeypatch.setattr(loading, "check_passes", lambda *args, **options: None)
    for context, good in ((switch, True), (switch + 64, False)):
        base = load_base(str(folder), quantization="none", compute_dtype=torch.float32, context=context)
        policy = Policy("main", RoleConfig(base.name, limits=LimitsConfig(context=context)), base, seed=0)
        assert doctor.mismatch_line(policy).good
        line = doctor.context_line(policy)
        assert line.good == good, line
        assert bool(line.fix) != good
        length = int(line.found.split()[7])
        assert context - doctor.TOKENS - 8 <= length <= context


@pytest.mark.parametrize("row", ["short", "long"])
def test_a_row_that_is_scored_otherwise_is_named(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch, row: str
) -> None:
    policy = make_policy(context=256)

    def scored(policy: Any, ids: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        wrong = (ids.shape[1] > 200) == (row == "long")
        return action_logprobs(policy, ids, *args, **options) - float(wrong)

    monkeypatch.setattr(doctor, "action_logprobs", scored)
    line = doctor.context_line(policy)
    assert not line.good
    assert f" 1 for {'the long one' if row == 'long' else 'a short sequence'}" in line.found
