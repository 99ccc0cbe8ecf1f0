"""The GPU recipes: they parse, and their plans fit the card in their name, from the models' shapes alone.

README has the plan of the quickstart beside theirs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import Qwen3Config, Qwen3MoeConfig

from mgrpo_lightning.commands.dry_run import dry_run
from mgrpo_lightning.commands.fit import make_cli
from tests.support.tiny import make_tiny_tokenizer


def qwen3(hidden: int, inner: int, layers: int, heads: int, *, tied: bool = True) -> Qwen3Config:
    """What config.json of a Qwen3 model says about its size."""
    return Qwen3Config(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=tied,
    )


QWEN3_30B_A3B = Qwen3MoeConfig(
    hidden_size=2048,
    intermediate_size=6144,
    moe_intermediate_size=768,
    num_experts=128,
    num_experts_per_tok=8,
    num_hidden_layers=48,
    num_attention_heads=32,
    num_key_value_heads=4,
)
QWEN3_30B_A3B.head_dim = 128  # no parameter, but in the released model's config.json
RECIPES = {
    "qwen3_0.6b_24gb.yaml": (qwen3(1024, 3072, 28, 16), 24),
    "qwen3_4b_24gb.yaml": (qwen3(2560, 9728, 36, 32), 24),
    "qwen3_8b_24gb.yaml": (qwen3(4096, 12288, 36, 32, tied=False), 24),
    "qwen3_30b_a3b_80gb.yaml": (QWEN3_30B_A3B, 80),
}
WHOLE = "qwen3_4b_24gb.yaml"
"""The others are changes to this one."""
SPARE = 2
"""GiB for the CUDA context and what the allocator cannot use."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_plan_fits_the_card_and_uses_it(recipe: str, root: Path, tmp_path: Path) -> None:
    shape, gib = RECIPES[recipe]
    shape.save_pretrained(tmp_path)
    make_tiny_tokenizer().save_pretrained(tmp_path)
    configs = [f"--config={root / 'configs' / 'gpu' / name}" for name in dict.fromkeys((WHOLE, recipe))]
    models = [f"--model.roles.{role}.base_model={tmp_path}" for role in ("main", "searcher")]
    cli = make_cli([*configs, "--trainer.accelerator=cpu", *models], run=False)
    planned = dry_run(cli.model, cli.datamodule, on_gpu=True).total / 2**30
    assert 0.65 * gib < planned < gib - SPARE
    for page in ("README.md", "docs/gpu.md"):
        assert f" {planned:.1f}" in (root / page).read_text(encoding="utf-8"), page
    for role in cli.model.roles.values():
        assert "gate" not in role.adapter.target_modules, "the router is never trained"


def test_the_readme_has_the_plan_of_the_quickstart(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    cli = make_cli(["--config=configs/quickstart.yaml", "--trainer.accelerator=cpu"], run=False)
    planned = dry_run(cli.model, cli.datamodule, on_gpu=False).total / 2**30
    assert f" {planned:.1f} GiB planned" in (root / "README.md").read_text(encoding="utf-8")


def test_every_recipe_is_planned(root: Path) -> None:
    assert {path.name for path in (root / "configs" / "gpu").glob("*.yaml")} == RECIPES.keys()
