"""An exported base: plain numbers that compute what the 4-bit base computes, or the original files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.policy.base_files import licence_of
from mgrpo_lightning.policy.exported_base import ORIGIN_NAME, exported_base, write_base
from mgrpo_lightning.policy.loading import Base, load_base, load_eos_ids
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.weights_hash import weights_digest

IDS = torch.arange(1, 9)[None]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dequantised_base_computes_what_the_4_bit_base_computes(
    make_base: Callable[..., Base], tmp_path: Path, dtype: str
) -> None:
    base = make_base("nf4", getattr(torch, dtype))
    write_base(base.name, tmp_path, quantization="nf4", compute_dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, base.model(IDS).logits, rtol=0, atol=1e-5)
        original = AutoModelForCausalLM.from_pretrained(base.name, dtype=model.dtype)(IDS).logits
    assert (original - model(IDS).logits).abs().mean() > 1e-2, "rounding to 4 bit shows"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.backend_tokenizer.to_str() == base.tokenizer.backend_tokenizer.to_str()
    assert load_eos_ids(str(tmp_path)) == base.eos_ids
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())


def test_a_dequantised_base_is_a_base_of_this_package(tiny_dir: Path, tmp_path: Path) -> None:
    write_base(str(tiny_dir), tmp_path, quantization="nf4", compute_dtype="float32")
    base = load_base(str(tmp_path), quantization="none", compute_dtype=torch.float32)
    assert base.digest != weights_digest(tiny_dir)


def test_original_files_are_copied_without_code_and_pickles(tmp_path: Path) -> None:
    write_base("pocket", _folder(tmp_path / "out"), quantization="none", compute_dtype="float32")
    origin = json.loads((tmp_path / "out" / ORIGIN_NAME).read_text())
    assert weights_digest(tmp_path / "out") == origin["base_model"]["sha256"]
    source = tmp_path / "source"
    write_base(str(tmp_path / "out"), _folder(source), quantization="none", compute_dtype="float32")
    for name in ("modeling.py", "pytorch_model.bin"):
        (source / name).write_text("x")
    write_base(str(source), _folder(tmp_path / "again"), quantization="none", compute_dtype="float32")
    assert {path.name for path in source.iterdir()} - {path.name for path in (tmp_path / "again").iterdir()} == {
        "modeling.py",
        "pytorch_model.bin",
    }


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.fixture
def trained(make_policy: Callable[..., Policy]) -> Policy:
    return make_policy(quantization="nf4")


def test_an_adapter_names_the_base_of_its_training(trained: Policy, tmp_path: Path) -> None:
    name, identity = trained.base.name, trained.identity
    for quantization, folder in (("nf4", tmp_path / "plain"), ("none", tmp_path / "original")):
        write_base(name, _folder(folder), quantization=quantization, compute_dtype="float32")  # type: ignore[arg-type]
    plain, original = (exported_base(str(tmp_path / name), identity) for name in ("plain", "original"))
    assert (plain.path, dict(plain.load)) == (str(tmp_path / "plain"), {"dtype": "float32"})
    assert original.load["quantization_config"]["load_in_4bit"] is True
    unquantised = {**identity, "quantization": "none"}
    assert dict(exported_base(str(tmp_path / "original"), unquantised).load) == {"dtype": "float32"}
    for other in (
        unquantised,
        {**identity, "compute_dtype": "bfloat16"},
        {**identity, "base_model": {"name": name, "sha256": "another"}},
    ):
        with pytest.raises(ConfigurationError, match=r"made from another one .*HINT: make it with `mgrpo export-base"):
            exported_base(str(tmp_path / "plain"), other)


def test_a_folder_of_another_origin_is_refused(trained: Policy, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"has no {ORIGIN_NAME}.*HINT: give the folder that"):
        exported_base(trained.base.name, trained.identity)
    (tmp_path / ORIGIN_NAME).write_text("{}")
    with pytest.raises(DataError, match=r"cannot be read.*HINT: export the base again"):
        exported_base(str(tmp_path), trained.identity)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n# Card\n", "mit"),
        ("# Card\n", None),
        ("---\n- a\n---\n", None),
        ("---\n{\n---\n", None),
    ],
)
def test_the_licence_is_the_one_that_the_card_states(tmp_path: Path, card: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_text(card)
    assert licence_of(str(tmp_path)) == licence


def test_the_embedded_model_has_a_licence_and_an_unknown_base_has_none() -> None:
    assert licence_of("pocket") == "apache-2.0"
    assert licence_of("nobody/knows") is None
