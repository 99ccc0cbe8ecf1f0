"""RoleModule.update: the gradient of one role, whatever the split, and nothing but that role's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.records.batch import AlignedBatch, TrainingRow
from tests.modules.conftest import MakeRoles, gradients, random_batch, scaled


@pytest.mark.parametrize("reduction", ["trajectory_mean", "token_mean"])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_any_split_into_micro_batches_gives_the_same_gradient(
    make_roles: MakeRoles, reduction: str, ratio: str
) -> None:
    batch = random_batch("main")
    found = []
    for budget in (1, 80, 10_000):
        main = make_roles(budget, reduction=reduction, ratio=ratio)["main"]
        metrics = main.update(batch)
        found.append((metrics["loss"], torch.cat([g.flatten() for g in gradients(main).values() if g is not None])))
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-10)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-9, atol=1e-12)


def test_gradient_equals_a_loop_over_rows_and_tokens(make_roles: MakeRoles) -> None:
    batch = random_batch("main", rows=4)
    roles = make_roles()
    roles["main"].update(batch)
    found = gradients(roles["main"])
    oracle = make_roles()["main"]
    for row in batch.rows:
        logprobs = action_logprobs(
            oracle.policy, row.ids[None], torch.tensor([len(row.ids)]), row.mask[None], temperature=1.0
        )
        ratio = (logprobs - row.behaviour).exp()
        terms = [torch.minimum(r * row.advantage, r.clamp(1 - 0.2, 1 + 0.28) * row.advantage) for r in ratio.unbind()]
        (-row.coefficient * torch.stack(terms).mean()).backward()
    for name, expected in gradients(oracle).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("budget", [1, 10_000])
@pytest.mark.parametrize("reduction", ["trajectory_mean", "token_mean"])
def test_a_trajectory_of_two_segments_is_one_mean_over_all_its_tokens(
    make_roles: MakeRoles, budget: int, reduction: str
) -> None:
    """With budget 1 the segments are in two micro-batches."""
    one, other, alone = random_batch("main", rows=3).rows
    one = replace(one, coefficient=0.75)
    other = replace(other, key=one.key, segment=1, advantage=one.advantage, coefficient=0.75)
    alone = replace(alone, coefficient=0.25)
    main, oracle = (make_roles(budget, reduction=reduction)["main"] for _ in range(2))
    main.update(AlignedBatch("main", [one, other, alone]))
    for name, expected in _two_trajectories(oracle, [one, other], alone, reduction).items():
        torch.testing.assert_close(gradients(main)[name], expected, rtol=1e-9, atol=1e-12)
    assert {key: len(ratios) for key, ratios in main.log_ratios.items()} == {
        one.key: len(one.behaviour) + len(other.behaviour),
        alone.key: len(alone.behaviour),
    }


def _two_trajectories(
    module: RoleModule, folded: list[TrainingRow], alone: TrainingRow, reduction: str
) -> dict[str, Any]:
    """Gradients of the loss, written out for one trajectory of some segments and one of a single segment."""

    def terms(row: TrainingRow) -> torch.Tensor:
        length = torch.tensor([len(row.ids)])
        logprobs = action_logprobs(module.policy, row.ids[None], length, row.mask[None], temperature=1.0)
        ratio = (logprobs - row.behaviour).exp()
        return -torch.minimum(ratio * row.advantage, ratio.clamp(1 - 0.2, 1 + 0.28) * row.advantage)

    tokens, others = torch.cat([terms(row) for row in folded]), terms(alone)
    if reduction == "trajectory_mean":
        loss = 0.75 * tokens.mean() + 0.25 * others.mean()
    else:
        loss = (0.75 * tokens.sum() + 0.25 * others.sum()) / (0.75 * len(tokens) + 0.25 * len(others))
    loss.backward()
    return gradients(module)


@pytest.mark.parametrize("correction", ["none", "truncated"])
def test_tokens_of_an_older_adapter_count_as_much_as_the_objective_says(make_roles: MakeRoles, correction: str) -> None:
    batch = random_batch("main", rows=4)
    main, oracle = make_roles(correction=correction, correction_cap=1.5)["main"], make_roles()["main"]
    main.update(batch)
    bounded = 0
    for row in batch.rows:
        length, mask = torch.tensor([len(row.ids)]), row.mask[None]
        logprobs = action_logprobs(oracle.policy, row.ids[None], length, mask, temperature=1.0)
        weights = (logprobs.detach() - row.behaviour).exp()
        bounded += int((weights > 1.5).sum())
        weights = weights.clamp(max=1.5) if correction == "truncated" else torch.ones_like(weights)
        (-row.coefficient * row.advantage * weights * logprobs).mean().backward()
    assert bounded, "the bound is not tried"
    for name, expected in gradients(oracle).items():
        torch.testing.assert_close(gradients(main)[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduction", ["trajectory_mean", "token_mean"])
def test_what_two_rollouts_say_alike_counts_for_both(make_roles: MakeRoles, reduction: str) -> None:
    batch = random_batch("main", rows=4)
    same = batch.rows[2]
    alike = replace(same, key=same.key._replace(query=9), advantage=-0.7, behaviour=same.behaviour + 0.1)
    batch = replace(batch, rows=[*batch.rows, alike])
    together, apart = make_roles(reduction=reduction)["main"], make_roles(1, reduction=reduction)["main"]
    together.update(batch)
    elsewhere = replace(
        alike, ids=torch.cat([alike.ids, alike.ids[:1]]), mask=torch.cat([alike.mask, ~alike.mask[-1:]])
    )
    apart.update(replace(batch, rows=[*batch.rows[:4], elsewhere]))  # a last token that is not scored changes nothing
    for name, expected in gradients(apart).items():
        # transformers' norms compute in float32, also here; so sums taken before and after them differ by that much
        torch.testing.assert_close(gradients(together)[name], expected, rtol=1e-5, atol=1e-7)


def test_rows_without_advantage_are_skipped_and_the_denominator_is_kept(make_roles: MakeRoles) -> None:
    batch = random_batch("main", zero=(1, 4, 5))
    skipping, computing = make_roles()["main"], make_roles()["main"]
    skipping.update(batch)
    # an advantage too small to matter is computed, not skipped
    computing.update(replace(batch, rows=[replace(r, advantage=r.advantage or 1e-300) for r in batch.rows]))
    for name, expected in gradients(computing).items():
        torch.testing.assert_close(gradients(skipping)[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 5])
def test_a_batch_without_signal_leaves_no_gradient_at_all(make_roles: MakeRoles, rows: int) -> None:
    main = make_roles()["main"]
    metrics = main.update(random_batch("main", rows=rows, zero=tuple(range(rows))))
    assert all(gradient is None for gradient in gradients(main).values())
    assert metrics["loss"] == 0
    assert main.clip() == 0


def test_an_update_touches_its_own_role_only(make_roles: MakeRoles) -> None:
    roles = make_roles()
    roles["main"].update(random_batch("main"))
    assert all(gradient is not None for gradient in gradients(roles["main"]).values())
    assert all(gradient is None for gradient in gradients(roles["searcher"]).values())


def test_roles_are_clipped_apart(make_roles: MakeRoles) -> None:
    clipped = []
    for factor in (1.0, 1000.0):
        roles = make_roles()
        roles["main"].update(scaled(random_batch("main"), factor))
        roles["searcher"].update(random_batch("searcher", seed=1))
        norms = {name: module.clip() for name, module in roles.items()}
        clipped.append((norms, gradients(roles["searcher"])))
    assert clipped[1][0]["main"] > 100 * clipped[0][0]["main"]
    assert clipped[1][0]["searcher"] == clipped[0][0]["searcher"]
    for name, gradient in clipped[0][1].items():
        assert torch.equal(clipped[1][1][name], gradient)  # type: ignore[arg-type]


def test_supervised_update_is_the_cross_entropy_of_the_actions(make_roles: MakeRoles) -> None:
    batch = random_batch("main", rows=3)
    main = make_roles(kind="supervised")["main"]
    loss = main.update(batch)["loss"]
    expected = 0.0
    for row in batch.rows:
        with torch.no_grad():
            logprobs = action_logprobs(
                main.policy, row.ids[None], torch.tensor([len(row.ids)]), row.mask[None], temperature=1.0
            )
        expected -= row.coefficient * float(logprobs.mean())
    assert loss == pytest.approx(expected, rel=1e-9)


def test_the_kl_term_is_against_the_adapter_of_the_start(make_roles: MakeRoles) -> None:
    batch = random_batch("main", rows=3)
    main = make_roles(kl=0.5)["main"]
    plain = make_roles()["main"]
    policy, expected = main.policy, 0.0
    for row in batch.rows:
        ids, lengths = row.ids[None], torch.tensor([len(row.ids)])
        with torch.no_grad(), policy.active():
            current = action_logprobs(policy.base.model, ids, lengths, row.mask[None], temperature=1.0)
        with torch.no_grad(), policy.reference():
            start = action_logprobs(policy.base.model, ids, lengths, row.mask[None], temperature=1.0)
        gap = start - current
        assert float(gap.abs().max()) > 0.01, "the test's adapters are not those of the start"
        expected += row.coefficient * float((gap.exp() - gap - 1).mean())
    assert main.update(batch)["loss"] == pytest.approx(plain.update(batch)["loss"] + 0.5 * expected, rel=1e-6)


def test_layers_are_checkpointed_from_the_first_micro_batch_on(make_roles: MakeRoles) -> None:
    main = make_roles(1, kl=0.5)["main"]
    main.gradient_checkpointing = True
    passes: list[bool] = []
    layer = main.policy.base.model.model.layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    main.update(random_batch("main", rows=3))
    # of each micro-batch: the reference, the forward pass, and what the backward pass computes again
    assert passes == [False, True, True] * 3


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_is_no_number_is_refused_and_the_adapter_kept(make_roles: MakeRoles, value: float) -> None:
    main = make_roles()["main"]
    main.update(random_batch("main"))
    next(iter(main.policy.named_parameters().values())).grad.view(-1)[3] = value  # type: ignore[union-attr]
    with pytest.raises(MgrpoError, match=r"role 'main' has norm (inf|nan) at its update 1; .* HINT: .*optimizer\.lr"):
        main.clip()


@pytest.mark.parametrize("gap", [-500.0, 500.0])
@pytest.mark.parametrize("ratio", ["token", "sequence", "sequence_product"])
def test_a_ratio_of_any_size_leaves_a_finite_gradient(make_roles: MakeRoles, ratio: str, gap: float) -> None:
    batch = random_batch("main")
    main = make_roles(ratio=ratio)["main"]
    main.update(replace(batch, rows=[replace(row, behaviour=row.behaviour - gap) for row in batch.rows]))
    assert math.isfinite(main.clip())


@pytest.mark.parametrize("where", ["parameter", "exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_step_that_leaves_a_number_that_is_none_is_refused_by_role_and_step(
    make_roles: MakeRoles, where: str, value: float
) -> None:
    main = make_roles()["main"]
    main.update(random_batch("main"))
    name, parameter = sorted(main.policy.named_parameters().items())[3]
    optimizer = torch.optim.AdamW(main.policy.named_parameters().values())
    optimizer.step()
    main.refuse_diverged(optimizer, step=7)
    with torch.no_grad():
        (parameter if where == "parameter" else optimizer.state[parameter][where]).view(-1)[1] = value
    found = name if where == "parameter" else f"{where} of {name}"
    with pytest.raises(MgrpoError, match=rf"role 'main': {found} is not finite .*in step 7.*HINT:.*optimizer\.lr"):
        main.refuse_diverged(optimizer, step=7)
