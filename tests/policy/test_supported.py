"""Bases whose numbers depend on the pass are refused in one sentence, before a weight is loaded if the config tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy import supported
from mgrpo_lightning.policy.consistency import check_passes, clear_pass_error
from mgrpo_lightning.policy.loading import Base, load_base
from mgrpo_lightning.policy.supported import num_positions, refuse_unsupported
from tests.policy.architectures import make_tiny, tiny_config
from tests.support.team_file import write_team_file

DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0}


def refusal(config: PreTrainedConfig, context: int = 80) -> str | None:
    try:
        refuse_unsupported(config, "tiny", context=context)
    except ConfigurationError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("mistral", {"sliding_window": 64}, "window of 64 tokens (sliding_window), less than limits.context of 80"),
        ("gemma3_text", {"sliding_window": 64}, "window of 64 tokens (sliding_window), less than limits.context of 80"),
        ("qwen2", {"layer_types": ["full_attention", "linear_attention"]}, "layers of kind ['linear_attention']"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "does not give their window"),
        ("gpt_neo", {}, "places in the padded batch (window_size)"),
        ("gpt2", {}, "no linear layer for an adapter: its layers are ['Conv1D']"),
        ("gpt_bigcode", {"n_positions": 64}, "learned positions for 64 tokens (wpe), less than limits.context of 80"),
        ("opt", {"max_position_embeddings": 64}, "learned positions for 64 tokens (embed_positions)"),
        ("falcon", {"alibi": True}, "ALiBi"),
        ("bloom", {}, "ALiBi"),
        ("mamba", {}, "recurrent layers"),
        ("bert", {}, "is an encoder"),
        ("bart", {}, "is an encoder-decoder model"),
        ("llama4_text", {}, "the part that computes the hidden states"),
        ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 64}, "rotary positions of type 'dynamic'"),
    ],
)
def test_what_a_config_tells_is_one_sentence_and_a_hint(kind: str, changes: dict[str, Any], says: str) -> None:
    found = refusal(tiny_config(kind, **changes))
    assert found is not None
    assert found.startswith("base_model 'tiny' (")
    assert says in found
    assert found.count("HINT:") == 1
    assert "\n" not in found


@pytest.mark.parametrize(
    ("kind", "changes", "largest"),
    [
        ("mistral", {"sliding_window": 64}, 64),
        ("gemma3_text", {"sliding_window": 64}, 64),
        ("gpt_bigcode", {"n_positions": 64}, 64),
        ("opt", {"max_position_embeddings": 64}, 64),
        ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 64}, 64),
    ],
)
def test_the_context_that_a_hint_names_is_the_largest_that_works(
    kind: str, changes: dict[str, Any], largest: int
) -> None:
    config = tiny_config(kind, **changes)
    assert f"HINT: set limits.context to at most {largest}" in str(refusal(config, largest + 1))
    assert refusal(config, largest) is None


def test_a_window_that_is_switched_off_or_given_to_no_layer_is_none() -> None:
    assert refusal(tiny_config("qwen2", sliding_window=8, use_sliding_window=False)) is None
    assert refusal(tiny_config("cohere2", sliding_window=8, layer_types=["full_attention"] * 4)) is None


def test_without_a_context_all_positions_of_the_config_are_meant(tmp_path: Path) -> None:
    config = tiny_config("mistral", sliding_window=64, max_position_embeddings=128)
    assert num_positions(config) == 128
    with pytest.raises(ConfigurationError, match="window of 64 tokens"):
        load_base(str(make_tiny(config, tmp_path)), quantization="none", compute_dtype=torch.float32)


@pytest.mark.parametrize("command", [["fit", "--dry_run"], ["fit"], ["doctor"]])
def test_every_command_refuses_before_a_weight_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    folder = make_tiny(tiny_config("llama", rope_parameters=DYNAMIC, max_position_embeddings=64), tmp_path / "base")
    loaded: list[str] = []
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **o: loaded.append("weights"))
    monkeypatch.setattr("sys.argv", ["mgrpo"])
    with pytest.raises((SystemExit, ConfigurationError)) as caught:
        main([*command[:1], "--config", str(write_team_file(tmp_path, folder)), *command[1:]])
    out, err = capsys.readouterr()
    assert "rotary positions of type 'dynamic'" in out + err + str(caught.value)
    assert "Traceback" not in out + err
    assert not loaded


def far_apart(model: PreTrainedModel) -> None:
    check_passes(model, "tiny", context=80)


def test_the_load_check_sees_what_short_rows_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scaling by length that nothing of the config or the modules tells: rows of 20 tokens end before the switch."""
    config = tiny_config("llama", rope_parameters=DYNAMIC, max_position_embeddings=64)
    monkeypatch.setattr(supported, "_length_dependent", lambda model: [])
    folder = str(make_tiny(config, tmp_path))
    load_base(folder, quantization="none", compute_dtype=torch.float32, context=64)
    with pytest.raises(ConfigurationError, match="longest one of its batch, which may have 80 tokens"):
        load_base(folder, quantization="none", compute_dtype=torch.float32, context=80)


def test_the_load_check_sees_rows_that_see_what_follows(
    make_base: Callable[..., Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_base().model
    far_apart(model)
    decoder = model.get_decoder()
    forward = decoder.forward

    def both_ways(attention_mask: Any = None, **inputs: Any) -> Any:
        ids = inputs["input_ids"]
        return forward(attention_mask=torch.zeros(len(ids), 1, ids.shape[1], ids.shape[1]), **inputs)

    monkeypatch.setattr(decoder, "forward", both_ways)
    with pytest.raises(ConfigurationError, match="depends on later tokens"):
        far_apart(model)


def test_the_load_check_sees_a_cache_that_is_not_read(
    make_base: Callable[..., Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_base().model
    decoder = model.get_decoder()
    forward = decoder.forward
    monkeypatch.setattr(
        decoder,
        "forward",
        lambda past_key_values=None, attention_mask=None, **inputs: forward(
            **inputs, attention_mask=attention_mask if past_key_values is None else None
        ),
    )
    with pytest.raises(ConfigurationError, match="computed in pieces, with a cache"):
        far_apart(model)


@pytest.mark.parametrize("error", [RuntimeError("sizes\ndiffer"), IndexError("no\n such"), AttributeError("none")])
def test_whatever_an_architecture_raises_is_a_sentence(make_base: Callable[..., Base], error: Exception) -> None:
    model = make_base().model
    assert isinstance(model, LlamaForCausalLM)
    with (
        pytest.raises(ConfigurationError, match=rf"'tiny' \(LlamaForCausalLM\) cannot place.*{type(error).__name__}"),
        clear_pass_error(model, "tiny"),
    ):
        raise error


def test_a_device_that_is_full_stays_what_it_is(make_base: Callable[..., Base]) -> None:
    with pytest.raises(torch.OutOfMemoryError), clear_pass_error(make_base().model, "tiny"):
        raise torch.OutOfMemoryError("full")
