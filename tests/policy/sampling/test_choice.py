"""The choice of one id: its frequencies, its log-probabilities, and the restricted choices of validation."""

from __future__ import annotations

import pytest
import torch

from mgrpo_lightning.policy.sampling import choice
from mgrpo_lightning.policy.sampling.base import SamplingParams
from mgrpo_lightning.policy.sampling.choice import choose
from mgrpo_lightning.policy.sampling.random import stream_of

LOGITS = torch.tensor([2.0, -1.0, 0.5, 1.9, -torch.inf, 0.0], dtype=torch.float64)


@pytest.fixture(params=["floats", "whole numbers"], autouse=True)
def _weights(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU, and as elsewhere."""
    if request.param == "whole numbers":
        monkeypatch.setattr(choice, "_weights", choice._whole)


def sample(n: int, **settings: float) -> tuple[torch.Tensor, torch.Tensor]:
    params = SamplingParams(max_new_tokens=1, stop_ids=(0,), **settings)  # type: ignore[arg-type]
    streams = torch.full((n,), stream_of("choice"))
    return choose(LOGITS.expand(n, -1), params, streams, torch.arange(n))


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.3])
def test_frequencies_and_logprobs_are_the_softmax_at_the_temperature(temperature: float) -> None:
    n = 200_000
    ids, logprobs = sample(n, temperature=temperature)
    expected = torch.softmax(LOGITS / temperature, -1)
    torch.testing.assert_close(torch.bincount(ids, minlength=6) / n, expected.float(), rtol=0, atol=5e-3)
    torch.testing.assert_close(logprobs, expected.log()[ids])


def test_greedy_takes_the_largest_with_its_logprob_at_temperature_1() -> None:
    ids, logprobs = sample(3, temperature=0.0)
    assert ids.tolist() == [0, 0, 0]
    torch.testing.assert_close(logprobs[0], torch.log_softmax(LOGITS, -1)[0])


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"top_k": 2}, {0, 3}),
        ({"top_k": 1}, {0}),
        ({"top_p": 0.5}, {0, 3}),
        ({"top_p": 1e-6}, {0}),
        ({"top_k": 99}, {0, 1, 2, 3, 5}),
    ],
)
def test_restricted_choices_keep_the_full_logprobs(settings: dict[str, float], allowed: set[int]) -> None:
    ids, logprobs = sample(5000, **settings)
    assert set(ids.tolist()) == allowed
    torch.testing.assert_close(logprobs, torch.log_softmax(LOGITS, -1)[ids])


def test_an_impossible_id_is_never_chosen_even_at_the_ends_of_the_unit_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]] * 2)
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    monkeypatch.setattr("mgrpo_lightning.policy.sampling.choice.uniforms", lambda streams, positions: ends)
    ids, _ = choose(
        logits, SamplingParams(1, (0,)), torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    )
    assert ids.tolist() == [1, 2]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"top_p": 0.8}])
def test_many_logits_are_looked_at_in_parts_and_finished_there(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, float]
) -> None:
    product = torch.randn(11, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    streams, positions = torch.arange(11) * 7919, torch.arange(11) % 3
    params = SamplingParams(max_new_tokens=1, stop_ids=(0,), **settings)  # type: ignore[arg-type]
    ids, logprobs = choose(3 * product.double(), params, streams, positions)
    monkeypatch.setattr("mgrpo_lightning.policy.lm_head.PART", 150)
    parts = []

    def finish(part: torch.Tensor) -> torch.Tensor:
        parts.append(len(part))
        return 3 * part.double()

    in_parts, logprobs_in_parts = choose(product, params, streams, positions, finish)
    assert parts == [3, 3, 3, 2]
    assert torch.equal(in_parts, ids)
    assert torch.equal(logprobs_in_parts, logprobs)


def test_whole_numbers_choose_what_floats_do(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(64, 50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    streams = torch.arange(64)
    params = SamplingParams(1, (0,))
    ids, _ = choose(logits, params, streams, torch.zeros_like(streams))
    monkeypatch.setattr(choice, "_weights", lambda probabilities: probabilities)
    assert torch.equal(ids, choose(logits, params, streams, torch.zeros_like(streams))[0])
