"""A file that was merged has the values that jsonargparse reads from the file itself."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import get_loader

from mgrpo_lightning.commands.yaml_text import UniqueKeyLoader, dumped, parsed

WORDS = """on off yes no y n true True null ~ Null 1e-3 1E5 1.e5 +1e+3 .5e5 1_000 1_0e2 0x10 010 0o17 04:00:00 12:00:00
1:30.5 2026-01-01 2026-01-01T10:00:00Z .inf -.INF .nan 1.0 1. -0 = << ??? 1e '1e-3' "2026-01-01" 'null' '12:00:00' ''"""


@pytest.mark.parametrize("word", WORDS.split())
def test_a_value_is_that_of_jsonargparse(word: str) -> None:
    if word == "<<":
        pytest.skip("a merge key is no value")
    read = get_loader("yaml")
    text = f"a: {word}\nb: 1\n"
    try:
        expected = read(text)
    except yaml.YAMLError:
        expected = None
    if expected is None:
        with pytest.raises(yaml.YAMLError):
            yaml.load(text, UniqueKeyLoader)
        return
    found = yaml.load(text, UniqueKeyLoader)
    assert str(found) == str(expected)  # as text, since NaN is not equal to itself
    assert str(read(dumped(found))) == str(expected)
    assert str(parsed(text)) == str(expected)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(WORDS.split())
)


@given(st.dictionaries(st.text(min_size=1), SCALARS | st.lists(SCALARS), min_size=2))
def test_what_is_written_is_read_alike(content: dict[str, object]) -> None:
    for one_line in (False, True):
        assert get_loader("yaml")(dumped(content, one_line=one_line)) == content


def test_text_that_is_no_yaml_stays_text() -> None:
    assert parsed("[1, 2") == "[1, 2"
