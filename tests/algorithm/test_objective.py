from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.algorithm.objective import surrogate_loss
from tests.algorithm.steps import KINDS, RATIOS, Ratio, Step, make_step


def by_hand(step: Step, config: ObjectiveConfig) -> Tensor:
    """The loss by a loop over trajectories and tokens, in scalars."""
    total = torch.zeros((), dtype=torch.float64)
    start = 0
    for row, length in enumerate(step.lengths):
        span = range(start, start + length)
        start += length
        differences = [step.logprobs[t] - step.behaviour[t] for t in span]
        for t, difference in zip(span, differences, strict=True):
            weight = step.coefficients[row] / (length if config.reduction == "trajectory_mean" else step.batch_tokens)
            if config.kind == "supervised":
                total = total - weight * step.logprobs[t]
                continue
            log_ratio = {
                "token": difference,
                "sequence": sum(differences) / length,
                "sequence_product": sum(differences),
            }[config.ratio]
            ratio = torch.exp(torch.as_tensor(log_ratio))
            bounded = torch.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
            advantage = step.advantages[row]
            gap = step.reference[t] - step.logprobs[t]
            kl = torch.exp(gap) - gap - 1
            total = total + weight * (config.kl * kl - torch.min(ratio * advantage, bounded * advantage))
    return total


@pytest.mark.parametrize("config", KINDS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_equal_the_brute_force_loop(config: ObjectiveConfig, seed: int) -> None:
    step = make_step(seed, [3, 1, 5, 2])
    loss, gradient = step.gradient(config)
    expected = by_hand(step, config)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-12)
    (expected_gradient,) = torch.autograd.grad(expected, step.logprobs)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("ratio", RATIOS)
def test_on_policy_gradient_is_reinforce(ratio: Ratio) -> None:
    step = make_step(0, [3, 5, 2], spread=0.0)
    loss, gradient = step.gradient(ObjectiveConfig(ratio=ratio))
    lengths = torch.tensor(step.lengths)
    weights = step.coefficients / lengths
    if ratio == "sequence_product":  # the gradient of the printed product is not divided by the length
        weights = step.coefficients
    torch.testing.assert_close(gradient, -(weights * step.advantages)[step.rows], rtol=1e-12, atol=0)
    assert loss == pytest.approx(-float((step.coefficients * step.advantages).sum()), rel=1e-12)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "moves"),
    [
        (0.2, 1.0, True),
        (0.3, 1.0, False),
        (0.3, -1.0, True),
        (-0.3, -1.0, False),
        (-0.2, -1.0, True),
        (-0.3, 1.0, True),
    ],
)
def test_clip_range_is_asymmetric_and_one_sided(log_ratio: float, advantage: float, moves: bool) -> None:
    logprobs = torch.tensor([-1.0 + log_ratio], dtype=torch.float64, requires_grad=True)
    output = surrogate_loss(
        logprobs,
        torch.tensor([-1.0], dtype=torch.float64),
        torch.tensor([0]),
        torch.tensor([advantage]),
        torch.tensor([1.0]),
        config=ObjectiveConfig(clip_low=0.2, clip_high=0.28),
        batch_tokens=1.0,
    )
    output.loss.backward()
    assert logprobs.grad is not None
    assert bool(logprobs.grad.any()) == moves
    assert output.sums["clipped"] == (0.0 if moves else 1.0)


@pytest.mark.parametrize("ratio", [ObjectiveConfig().ratio, "sequence"])
def test_long_traces_do_not_explode(ratio: Ratio) -> None:
    # TRL #4772: as a product, 0.2 nats on each of 5,000 tokens are a ratio of e^1000.
    step = make_step(0, [5000, 3])
    step.logprobs = (step.behaviour + 0.2).requires_grad_()
    step.advantages = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    config = replace(ObjectiveConfig(), ratio=ratio)
    loss, gradient = step.gradient(config)
    c = step.coefficients
    assert loss == pytest.approx(math.exp(0.2) * float(c[0] - c[1]), rel=1e-12)
    torch.testing.assert_close(gradient[0], c[0] * math.exp(0.2) / 5000, rtol=1e-9, atol=0)


def test_ratio_is_against_the_stored_behaviour_policy() -> None:
    step = make_step(2, [4, 3])
    output = step.loss(ObjectiveConfig(clip_low=10, clip_high=10))
    ratio = (step.logprobs - step.behaviour).exp().detach()
    weights = (step.coefficients / torch.tensor(step.lengths))[step.rows]
    expected = -(weights * ratio * step.advantages[step.rows]).sum()
    assert float(output.loss.detach()) == pytest.approx(float(expected), rel=1e-12)


def test_proximal_policy_bounds_the_step_and_behaviour_policy_corrects_the_data() -> None:
    step = make_step(3, [4, 3])
    config = ObjectiveConfig()
    output = step.loss(config, proximal=step.proximal, correction_cap=1.05)
    ratio = (step.logprobs - step.proximal).exp().detach()
    correction = (step.proximal - step.behaviour).exp().clamp(max=1.05)
    advantage = step.advantages[step.rows]
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
    weights = (step.coefficients / torch.tensor(step.lengths))[step.rows]
    assert float(output.loss.detach()) == pytest.approx(-float((weights * correction * surrogate).sum()), rel=1e-12)
    assert output.sums["correction"] == pytest.approx(float(correction.sum()), rel=1e-12)
    assert float(correction.max()) == 1.05


def test_a_proximal_policy_that_carries_a_gradient_passes_none() -> None:
    step = make_step(3, [4, 3])
    proximal = step.proximal.clone().requires_grad_()
    step.loss(ObjectiveConfig(), proximal=proximal, correction_cap=2.0).loss.backward()
    assert proximal.grad is None


def test_kl_is_zero_at_the_reference_and_pulls_towards_it() -> None:
    step = make_step(4, [3, 3])
    step.advantages = torch.zeros(2, dtype=torch.float64)
    config = ObjectiveConfig(kl=0.5)
    loss, gradient = step.gradient(config)
    assert loss > 0
    assert torch.equal(gradient > 0, step.logprobs.detach() > step.reference)
    step.reference = step.logprobs.detach()
    assert step.gradient(config)[0] == 0.0


def test_a_correction_without_a_proximal_policy_is_refused() -> None:
    step = make_step(0, [2])
    with pytest.raises(AssertionError, match="proximal"):
        step.loss(ObjectiveConfig(), correction_cap=2.0)


def test_no_tokens_give_a_loss_of_zero() -> None:
    empty = torch.zeros(0, dtype=torch.float64)
    for config in (ObjectiveConfig(), ObjectiveConfig(kind="supervised")):
        output = surrogate_loss(
            empty, empty, empty.long(), torch.zeros(0), torch.zeros(0), config=config, batch_tokens=0.0
        )
        assert float(output.loss) == 0.0
        assert all(math.isfinite(value) for value in output.sums.values())
