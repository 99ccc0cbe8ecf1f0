"""Several optimizer steps on one batch: minibatches, kept proximal log-probabilities, and a clip that acts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.modules.role import RoleModule
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.records.batch import AlignedBatch, TrainingRow
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.roles.config import OptimizerConfig, RoleConfig
from mgrpo_lightning.roles.minibatches import minibatch_of, refuse_empty_minibatches
from tests.modules.conftest import MakeRoles, gradients, random_batch
from tests.support.team_file import write_team_file

CORRECTIONS = ["ratio", "truncated", "none"]


def several(
    make_roles: MakeRoles, passes: int, minibatches: int, budget: int = 4096, **objective: object
) -> RoleModule:
    """Main with several optimizer steps for each batch."""
    module = make_roles(budget, **objective)["main"]
    optimizer = replace(module.config.optimizer, updates_per_batch=passes, minibatches=minibatches)
    module.config = replace(module.config, optimizer=optimizer)
    return module


def logprobs_of(module: RoleModule, row: TrainingRow) -> torch.Tensor:
    length = torch.tensor([len(row.ids)])
    return action_logprobs(module.policy, row.ids[None], length, row.mask[None], temperature=1.0)


def on_policy(module: RoleModule, batch: AlignedBatch) -> AlignedBatch:
    """The batch as if the policy had sampled it."""
    with torch.no_grad():
        return replace(batch, rows=[replace(row, behaviour=logprobs_of(module, row)) for row in batch.rows])


def rows_of(batch: AlignedBatch, minibatch: int, number: int) -> list[TrainingRow]:
    return [row for row in batch.rows if minibatch_of(row.key, number) == minibatch]


def add_plain_gradient(
    module: RoleModule, rows: Iterable[TrainingRow], correction: str, proximal: dict[Key, torch.Tensor]
) -> None:
    """Add the gradient of the loss as docs/algorithm.md writes it, row after row and token after token."""
    for row in rows:
        logprobs = logprobs_of(module, row)
        anchor = row.behaviour if correction == "ratio" else proximal[row.key]
        ratio, a = (logprobs - anchor).exp(), row.advantage
        terms = torch.stack([torch.minimum(r * a, r.clamp(1 - 0.2, 1 + 0.28) * a) for r in ratio.unbind()])
        if correction == "truncated":
            terms = terms * (anchor - row.behaviour).exp().clamp(max=2.0)
        (-row.coefficient * terms.mean()).backward()


def step(module: RoleModule, lr: float = 0.05) -> None:
    """Move the adapter along its gradient, and forget the gradient."""
    with torch.no_grad():
        for parameter in module.policy.named_parameters().values():
            if parameter.grad is not None:
                parameter.sub_(lr * parameter.grad.sign())
            parameter.grad = None


@pytest.mark.parametrize("budget", [1, 10_000])
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_the_gradient_of_each_minibatch_is_that_of_a_plain_path(
    make_roles: MakeRoles, correction: str, budget: int
) -> None:
    """In float64, of the first minibatch and of all that follow it on the adapter that the steps before have left."""
    module = several(make_roles, 2, 4, budget, correction=correction)
    oracle = make_roles(correction=correction)["main"]
    batch = random_batch("main", rows=8, zero=(3,))
    with torch.no_grad():
        proximal = {row.key: logprobs_of(oracle, row) for row in batch.rows}
    for index in range(8):
        module.update(batch)
        add_plain_gradient(oracle, rows_of(batch, index % 4, 4), correction, proximal)
        for name, expected in gradients(oracle).items():
            torch.testing.assert_close(gradients(module)[name], expected, rtol=1e-7, atol=1e-11)
        step(module)
        step(oracle)


@pytest.mark.parametrize("reduction", ["trajectory_mean", "token_mean"])
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_the_gradients_of_the_minibatches_sum_to_that_of_the_batch(
    make_roles: MakeRoles, reduction: str, correction: str
) -> None:
    batch = random_batch("main", zero=(2,))
    whole = make_roles(reduction=reduction, correction=correction)["main"]
    parts = several(make_roles, 1, 3, reduction=reduction, correction=correction)
    expected = whole.update(batch)
    found = [parts.update(batch) for _ in range(3)]
    assert found[-1] == pytest.approx(expected, rel=1e-9)
    assert found[0]["trained_tokens"] < expected["trained_tokens"]
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(parts)[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize(("passes", "minibatches"), [(4, 1), (1, 2), (2, 2)])
def test_the_clip_acts_from_the_second_minibatch_on(
    make_roles: MakeRoles, passes: int, minibatches: int, correction: str
) -> None:
    module = several(make_roles, passes, minibatches, correction=correction)
    batch = on_policy(module, random_batch("main", rows=8))
    fractions = []
    for _ in range(passes * minibatches):
        metrics = module.update(batch)
        fractions.append(metrics["clip_fraction"])
        step(module)
    assert fractions[0] == 0
    assert all(fraction > 0 for fraction in fractions[1:]), fractions
    assert metrics["mismatch"] == pytest.approx(0, abs=1e-12), "it is that of the adapter before the update"
    assert metrics["trained_tokens"] == sum(len(row.behaviour) for row in batch.rows)


def test_log_ratios_are_those_before_the_first_step(make_roles: MakeRoles) -> None:
    module = several(make_roles, 1, 4)
    batch = random_batch("main", rows=8, zero=(5,))
    with torch.no_grad():
        expected = {row.key: logprobs_of(module, row) - row.behaviour for row in batch.rows if row.advantage}
    for _ in range(4):
        module.update(batch)
        step(module)
    assert module.log_ratios.keys() == expected.keys()
    for key, ratios in expected.items():
        torch.testing.assert_close(module.log_ratios[key].double(), ratios, rtol=1e-5, atol=1e-6)


def test_an_update_that_was_begun_early_is_the_same(make_roles: MakeRoles) -> None:
    found = []
    for early in (False, True):
        module = several(make_roles, 2, 2, 40, correction="truncated")
        batch = random_batch("main", rows=8)
        if early:
            module.begin(batch)
            assert module.advance()
            while module.advance():
                pass
        for _ in range(4):
            module.update(batch)
            step(module)
        found.append(module.policy.adapter_state())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_an_empty_minibatch_leaves_no_gradient(make_roles: MakeRoles) -> None:
    module = several(make_roles, 1, 2)
    batch = random_batch("main", rows=4, zero=(0, 2))
    assert module.update(batch)["trained_tokens"] == 0
    assert set(gradients(module).values()) == {None}
    assert module.update(batch)["trained_tokens"] > 0


@pytest.mark.parametrize(("queries", "rollouts", "number"), [(8, 8, 4), (2, 6, 4), (4, 1, 4), (1, 8, 8), (3, 4, 6)])
def test_minibatches_are_about_equal_and_none_is_empty(queries: int, rollouts: int, number: int) -> None:
    keys = [Key(0, query, rollout, call) for query in range(queries) for rollout in range(rollouts) for call in (0, 1)]
    sizes = Counter(minibatch_of(key, number) for key in keys)
    assert len(sizes) == number
    if rollouts % number == 0:
        assert len({*sizes.values()}) == 1
    assert all(minibatch_of(key, number) == minibatch_of(key._replace(invocation=0), number) for key in keys)


@pytest.mark.parametrize(
    ("role", "problem"),
    [
        ({"minibatches": 10}, r"roles\.main\.optimizer\.minibatches is 10, but a step of 2 queries .* fills 9 at most"),
        ({"minibatches": 6, "queue": 5}, r"minibatches is 6, but the role's queue gives an update 5 trajectories"),
    ],
)
def test_minibatches_that_no_step_can_fill_are_refused(role: dict[str, Any], problem: str) -> None:
    roles = {"main": RoleConfig("base", optimizer=OptimizerConfig(minibatches=role.pop("minibatches")), **role)}
    with pytest.raises(ConfigurationError, match=problem):
        refuse_empty_minibatches(roles, ["main"], queries=2, rollouts=8)
    refuse_empty_minibatches(roles, [], queries=2, rollouts=8)


def team_file(folder: Path, model: Path, **optimizer: int) -> Path:
    """A warm start of the toy team whose main has such an optimizer."""
    path = write_team_file(folder, model, limit_val_batches=0, max_steps=2)
    team = yaml.safe_load(path.read_text())
    main_ = team["model"]["roles"]["main"]
    main_["optimizer"] = {**main_["optimizer"], **optimizer}  # a new one: the roles of the file share their blocks
    path.write_text(yaml.safe_dump(team))
    return path


@pytest.mark.usefixtures("own_argv")
def test_a_step_of_the_run_is_one_batch_however_many_optimizer_steps_it_takes(
    tmp_path: Path, tiny_folder: Path
) -> None:
    main(["fit", "--config", str(team_file(tmp_path, tiny_folder, updates_per_batch=2, minibatches=2))])
    run = tmp_path / "runs" / "toy"
    (path,) = (run / "checkpoints").glob("*.ckpt")
    state = torch.load(path, weights_only=True)
    assert (path.name, state["global_step"], state["num_steps"]) == ("step=000002.ckpt", 2, 2)
    assert {role: values["updates"] for role, values in state["roles"].items()} == {"main": 2, "searcher": 2}
    for role, steps in (("main", 8), ("searcher", 2)):
        counts = {float(moments["step"]) for moments in state["roles"][role]["optimizer"].values()}
        assert counts == {steps}, "AdamW counts each of its own steps"


@pytest.mark.usefixtures("own_argv")
def test_a_shared_adapter_takes_each_step_once(tmp_path: Path, tiny_folder: Path) -> None:
    path = team_file(tmp_path, tiny_folder)
    team = yaml.safe_load(path.read_text())
    roles = team["model"]["roles"]
    roles["searcher"]["adapter"] = {**roles["searcher"]["adapter"], "shared_with": "main"}
    for role in roles.values():
        role["optimizer"] = {**role["optimizer"], "updates_per_batch": 2, "minibatches": 2}
    path.write_text(yaml.safe_dump(team))
    main(["fit", "--config", str(path)])
    (saved,) = (tmp_path / "runs" / "toy" / "checkpoints").glob("*.ckpt")
    (state,) = torch.load(saved, weights_only=True)["roles"].values()
    assert state["updates"] == 2
    assert {float(moments["step"]) for moments in state["optimizer"].values()} == {8}


@pytest.mark.usefixtures("own_argv")
def test_too_many_minibatches_are_refused_by_a_dry_run(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    team = team_file(tmp_path, tiny_folder, minibatches=4)
    for dry in (["--dry_run"], []):
        with pytest.raises(SystemExit) as stopped:
            main(["fit", "--config", str(team), *dry])
        assert stopped.value.code == 2
        assert "model.roles.main.optimizer.minibatches is 4, but a step of 2 queries" in capsys.readouterr().err
