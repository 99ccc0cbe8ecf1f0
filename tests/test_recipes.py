"""The GPU recipes: they parse, and their plans fit the card in their name, from the models' shapes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedConfig, Qwen3Config

from mgrpo_lightning.cli import make_cli
from mgrpo_lightning.dry_run import dry_run
from tests.tiny import make_tiny_tokenizer

QWEN3_4B = Qwen3Config(
    hidden_size=2560,
    intermediate_size=9728,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=True,
)
SPARE = 2
"""GiB for the CUDA context and what the allocator cannot use."""


@pytest.mark.parametrize(("recipe", "shape", "gib"), [("qwen3_4b_24gb.yaml", QWEN3_4B, 24)])
def test_the_plan_fits_the_card(recipe: str, shape: PreTrainedConfig, gib: int, root: Path, tmp_path: Path) -> None:
    shape.save_pretrained(tmp_path)
    make_tiny_tokenizer().save_pretrained(tmp_path)
    config = root / "configs" / "gpu" / recipe
    models = [f"--model.init_args.roles.{role}.base_model={tmp_path}" for role in ("main", "searcher")]
    cli = make_cli(["--config", str(config), "--trainer.accelerator=cpu", *models], run=False)
    assert dry_run(cli.model, cli.datamodule).total / 2**30 < gib - SPARE
