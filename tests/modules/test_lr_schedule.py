"""Learning rates of a role against hand-computed values."""

import pytest

from mgrpo_lightning.modules.lr_schedule import learning_rate
from mgrpo_lightning.roles.config import OptimizerConfig


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", [0.25, 0.5, 0.75, 1.0, 0.8828427, 0.6, 0.3171573, 0.2]),
    ],
)
def test_shapes(decay: str, expected: list[float]) -> None:
    config = OptimizerConfig(lr=1.0, warmup=3, decay=decay, final=0.2)  # type: ignore[arg-type]
    assert [learning_rate(config, update, 8) for update in range(8)] == pytest.approx(expected)


def test_a_role_that_updates_beyond_the_plan_keeps_the_final_rate() -> None:
    config = OptimizerConfig(lr=1.0, decay="linear", final=0.1)
    assert learning_rate(config, 500, 10) == pytest.approx(0.1)
