"""What ``mgrpo doctor`` says of a policy: good as it is, bad where sampling changes it or samples from another one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mgrpo_lightning import doctor
from mgrpo_lightning.policy.logprobs import action_logprobs
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
