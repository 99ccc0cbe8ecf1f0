"""Settings under which the ratio would not be 1 are refused before anything is loaded or played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.loading import Base
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.roles.config import AdapterConfig, RoleConfig, SamplingConfig

MakeBase = Callable[..., Base]


@pytest.mark.parametrize("kind", ["mgrpo", "supervised"])
def test_adapter_dropout_is_refused_in_training(make_base: MakeBase, kind: Literal["mgrpo", "supervised"]) -> None:
    base = make_base()
    config = RoleConfig(base.name, adapter=AdapterConfig(dropout=0.1), objective=ObjectiveConfig(kind=kind))
    with pytest.raises(ConfigurationError, match=r"dropout is 0\.1.*HINT"):
        Policy("main", config, base, seed=0)


@pytest.mark.parametrize(
    "sampling", [SamplingConfig(top_p=0.9), SamplingConfig(top_k=20), SamplingConfig(temperature=0)]
)
def test_biased_sampling_is_refused_in_training(make_base: MakeBase, sampling: SamplingConfig) -> None:
    base = make_base()
    with pytest.raises(ConfigurationError, match="HINT"):
        Policy("main", RoleConfig(base.name, sampling=sampling), base, seed=0)


def test_both_are_fine_where_no_ratio_is_formed(make_base: MakeBase) -> None:
    base = make_base()
    frozen = RoleConfig(base.name, adapter=AdapterConfig(dropout=0.1), trainable=False)
    Policy("first", replace(frozen, sampling=SamplingConfig(top_k=5)), base, seed=0)
    supervised = RoleConfig(base.name, objective=ObjectiveConfig(kind="supervised"))
    Policy("second", replace(supervised, sampling=SamplingConfig(top_p=0.9)), base, seed=0)


def test_a_policy_starts_at_version_0_with_the_models_stop_ids(make_base: MakeBase) -> None:
    base = make_base()
    policy = Policy("main", RoleConfig(base.name), base, seed=0)
    assert policy.version == 0
    assert policy.chat.stop_ids == base.eos_ids
    assert policy.device == base.model.device
