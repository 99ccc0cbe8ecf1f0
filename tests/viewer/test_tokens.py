"""Tokens as text: every one of a turn, from a tokenizer that is read fast where it can be and whole in any case."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mgrpo_lightning.viewer.tokens import Decoder, decoder_of
from tests.support.tiny import make_tiny_tokenizer


@given(st.text(max_size=40))
def test_pieces_of_a_turn_are_its_text(text: str) -> None:
    tokenizer = make_tiny_tokenizer()
    decoder = Decoder(tokenizer.backend_tokenizer)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    pieces = decoder.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == decoder.text(ids)
    cut = decoder.pieces(ids[:-1])
    assert "".join(cut) == decoder.text(ids[:-1]), "a character that a limit cut in two"


TEXT = "\u00e9t\u00e9 <|im_start|>user <extra>"


def decoded(folder: Path) -> tuple[str, list[str], bool]:
    """Text and pieces from a folder's tokenizer in a new process, and whether that took transformers."""
    program = f"""if True:
        import json, sys
        from mgrpo_lightning.viewer.tokens import decoder_of
        decoder, ids = decoder_of({str(folder)!r}), json.loads(sys.argv[1])
        print(json.dumps([decoder.text(ids), decoder.pieces(ids), "transformers" in sys.modules]))
    """
    ids = json.dumps(AutoTokenizer.from_pretrained(folder)(TEXT, add_special_tokens=False).input_ids)
    run = subprocess.run([sys.executable, "-c", program, ids], check=True, capture_output=True, text=True)
    text, pieces, slow = json.loads(run.stdout)
    return text, pieces, slow


def test_a_tokenizer_is_read_whole_and_without_transformers(tmp_path: Path) -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    tokenizer.save_pretrained(tmp_path)
    text, pieces, slow = decoded(tmp_path)
    assert text == "".join(pieces) == TEXT
    assert pieces[-1] == "<extra>"
    assert not slow


def test_with_tokens_that_stand_in_the_settings_alone_it_is_read_by_transformers(tmp_path: Path) -> None:
    make_tiny_tokenizer().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["extra_special_tokens"] = ["<extra>"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    decoder = decoder_of(str(tmp_path))
    assert decoder is not None
    ids = AutoTokenizer.from_pretrained(tmp_path)(TEXT, add_special_tokens=False).input_ids
    assert decoder.text(ids) == "".join(decoder.pieces(ids)) == TEXT
    assert decoder.pieces(ids)[-1] == "<extra>"


def test_a_base_that_is_not_here_or_damaged_has_no_decoder(tmp_path: Path) -> None:
    assert decoder_of(None) is None
    assert decoder_of(str(tmp_path / "gone")) is None
    assert decoder_of("nobody/has-this-one") is None
    make_tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    assert decoder_of(str(tmp_path)) is None
