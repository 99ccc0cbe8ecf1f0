"""Histograms and hyperparameters reach TensorBoard; the ratios of an update are those of its tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mgrpo_lightning.callbacks import Distributions, RolloutLog
from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.modules.team import TeamModule
from mgrpo_lightning.records.ratios import read_ratios, read_steps, write_ratios
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.roles.config import AdapterConfig, OptimizerConfig, RoleConfig
from tests.modules.conftest import MakeRoles, random_batch
from tests.modules.test_team import Prepared, plain_trainer
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model


class OnlyRatios(RolloutLog):
    """Random batches have no groups to be written."""

    def on_train_batch_start(self, *args: object) -> None:
        pass


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"histograms": 0, "tensors": 0, "scalars": 0})
    found.Reload()
    return found


def test_every_step_has_its_histograms_and_its_ratios(tmp_path: Path) -> None:
    model = str(make_tiny_model(tmp_path / "model"))
    roles = {
        role: RoleConfig(model, AdapterConfig(rank=4), calls=calls, optimizer=OptimizerConfig(lr=1e-2))
        for role, calls in (("main", ["searcher"]), ("searcher", []))
    }
    logger = TensorBoardLogger(tmp_path, name="", version="tensorboard")
    trainer = plain_trainer(tmp_path, 2, logger=logger, callbacks=[Distributions(), OnlyRatios()])
    trainer.fit(TeamModule(roles), datamodule=Prepared(idle=[(1, "searcher")]))
    found = events(tmp_path / "tensorboard")
    for name, steps in (("main", [0, 1]), ("searcher", [0])):
        for figure in ("advantages", "log_ratios"):
            assert [event.step for event in found.Histograms(f"{name}/{figure}")] == steps
    assert found.Histograms("main/advantages")[0].histogram_value.num == 3
    ratios = read_ratios(tmp_path / "journal" / "ratios" / "000000.parquet", 0)
    assert len(ratios) == 3
    batch = random_batch("main", rows=3, seed=0)
    assert [len(ratios[row.key]) for row in batch.rows] == [len(row.behaviour) for row in batch.rows]


def test_settings_stand_beside_outcomes(tmp_path: Path) -> None:
    team = write_team_file(tmp_path, make_tiny_model(tmp_path / "model"))
    main(["fit", f"--config={team}", "--trainer.max_steps=1"])
    found = events(tmp_path / "runs" / "toy" / "tensorboard")
    assert "_hparams_/session_start_info" in found.SummaryMetadata.__self__.summary_metadata
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"main/optimizer/lr" in content
    assert b"alignment/mode" in content
    assert found.Scalars("outcome/exact_match")[0].value >= 0


@pytest.mark.parametrize("token_budget", [40, 4096])
def test_a_log_ratio_is_current_less_behaviour_token_by_token(make_roles: MakeRoles, token_budget: int) -> None:
    main_ = make_roles(token_budget)["main"]
    batch = random_batch("main", zero=(2,))
    main_.update(batch)
    assert set(main_.log_ratios) == {row.key for i, row in enumerate(batch.rows) if i != 2}, "rows without effect"
    for row in batch.rows[:2]:
        model = main_.policy.base.model
        with torch.no_grad(), main_.policy.active():
            logits = model(row.ids[None]).logits[0].log_softmax(-1)
        places = row.mask.nonzero()[:, 0]
        expected = logits[places - 1, row.ids[places]] - row.behaviour
        torch.testing.assert_close(main_.log_ratios[row.key].double(), expected, rtol=1e-5, atol=1e-6)


def test_a_warm_start_has_no_ratios(make_roles: MakeRoles) -> None:
    main_ = make_roles(kind="supervised")["main"]
    main_.update(random_batch("main"))
    assert main_.log_ratios == {}


def test_ratios_of_several_steps_are_found_by_the_step_they_were_played_in(tmp_path: Path) -> None:
    played = {Key(3, 0, 0, 0): torch.tensor([0.25, -1.5]), Key(4, 1, 0, 1): torch.tensor([0.5])}
    path = write_ratios(tmp_path, 5, {"main": played, "searcher": {}})
    assert path == tmp_path / "ratios" / "000005.parquet"
    assert read_steps(path) == {3, 4}
    assert read_ratios(path, 3) == {Key(3, 0, 0, 0): [0.25, -1.5]}
    assert write_ratios(tmp_path, 6, {"main": {}}) is None
    second = write_ratios(tmp_path, 6, {"main": played}, rank=1, num_ranks=2)
    assert second is not None
    assert second == tmp_path / "ratios" / "000006-1.parquet"
    write_ratios(tmp_path, 6, {"main": {}}, rank=0, num_ranks=2)
    assert second.exists()
    write_ratios(tmp_path, 6, {"main": {}}, rank=0, num_ranks=1)
    assert not second.exists()
