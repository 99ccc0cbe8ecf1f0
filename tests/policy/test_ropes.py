"""Every rotary type of transformers: the same numbers in sampler, trainer and transformers with PEFT, or refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mgrpo_lightning.errors import ConfigurationError
from tests.policy.architectures import BOUND, CONTEXTS, gap, make_tiny, tiny_config

ORIGINAL = 32
_HALF = 4
"""Half of a tiny head: as many frequencies."""
PARAMETERS: dict[str, dict[str, Any]] = {
    "factor": {"factor": 4.0},
    "original_max_position_embeddings": {"original_max_position_embeddings": ORIGINAL},
    "low_freq_factor": {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "partial_rotary_factor": {"partial_rotary_factor": 0.5},
    "short_factor": {"short_factor": [1.0] * _HALF, "long_factor": [4.0] * _HALF},
}
NEEDS = {
    "linear": ["factor"],
    "dynamic": ["factor"],
    "yarn": ["factor", "original_max_position_embeddings"],
    "longrope": ["factor", "original_max_position_embeddings", "short_factor"],
    "llama3": ["factor", "original_max_position_embeddings", "low_freq_factor"],
    "proportional": ["partial_rotary_factor"],
    "default": [],
}
BY_LENGTH = {"dynamic", "longrope"}
"""Types that choose their frequencies in each pass: refused where a row may be longer than the original length."""


def rope(kind: str) -> dict[str, Any]:
    """Settings of a rotary type; those of one that is new in transformers have to be written down here."""
    settings: dict[str, Any] = {"rope_type": kind, "rope_theta": 100.0}
    for need in NEEDS[kind]:
        settings |= PARAMETERS[need]
    return settings


KINDS = sorted({*ROPE_INIT_FUNCTIONS, "default"})
SUITE = [*((kind, "llama") for kind in KINDS), ("yarn", "qwen3"), ("dynamic", "qwen3")]
WALK = [
    pytest.param(kind, family, marks=[] if (kind, family) in SUITE else pytest.mark.slow)
    for family in ("llama", "qwen3")
    for kind in KINDS
]


@pytest.mark.parametrize(("kind", "family"), WALK)
def test_every_rope_is_exact_at_its_context_or_refused(tmp_path: Path, kind: str, family: str) -> None:
    """Alone and beside a longer row; positions of ``dynamic`` and ``longrope`` follow the longest row of a pass."""
    longest = ORIGINAL if kind in BY_LENGTH or kind == "default" else 4 * ORIGINAL
    config = tiny_config(family, rope_parameters=rope(kind), max_position_embeddings=longest)
    folder = make_tiny(config, tmp_path)
    for context in CONTEXTS:
        if kind in BY_LENGTH and context > ORIGINAL:
            refusal = rf"rotary positions of type '{kind}'.*limits\.context is {context}.*HINT: .*context to at most 32"
            with pytest.raises(ConfigurationError, match=refusal):
                gap(folder, context)
        else:
            assert gap(folder, context).largest <= BOUND


def test_an_old_file_says_dynamic_in_other_words(tmp_path: Path) -> None:
    """``rope_scaling`` with ``type``, as before transformers 5."""
    make_tiny(tiny_config("llama", max_position_embeddings=ORIGINAL), tmp_path)
    file = tmp_path / "config.json"
    text = re.sub(
        r'"rope_parameters": \{[^}]*\}', '"rope_scaling": {"type": "dynamic", "factor": 4.0}', file.read_text()
    )
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="'dynamic'"):
        gap(tmp_path, 80)


def test_a_fixed_scaling_that_is_called_dynamic_is_exact(tmp_path: Path) -> None:
    """Hunyuan's files say ``dynamic`` with an ``alpha``, which is the same at every length."""
    assert "hunyuan_v1_dense" in CONFIG_MAPPING
    settings = {**rope("dynamic"), "alpha": 8.0}
    config = tiny_config("hunyuan_v1_dense", rope_parameters=settings, max_position_embeddings=ORIGINAL)
    assert gap(make_tiny(config, tmp_path), 80).largest <= BOUND
