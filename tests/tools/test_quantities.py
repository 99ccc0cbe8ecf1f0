"""Which of two quantities is more."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.tools.base import load_tool
from mgrpo_lightning.tools.quantities import larger, quantity


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("643,801 sq km", "505,370 sq km", "643,801 sq km is more."),
        ("9 years", "10.5 years", "10.5 years is more."),
        (" -3 m", "-12 m ", "-3 m is more."),
        ("1,000", "1000.0", "both are the same."),
    ],
)
def test_the_larger_one_is_named_word_for_word(first: str, second: str, said: str) -> None:
    assert larger(first, second) == said


@given(st.integers(-(10**12), 10**12), st.sampled_from(["", "km", "sq km"]))
def test_thousands_are_read_as_they_are_written(number: int, unit: str) -> None:
    assert quantity(f"{number:,} {unit}".strip()) == (number, unit)


@pytest.mark.parametrize(
    ("first", "problem"), [("three km", "does not begin"), ("", "does not"), ("3 m", "units differ")]
)
def test_what_cannot_be_compared_is_an_observation(first: str, problem: str) -> None:
    tool = load_tool("mgrpo_lightning.tools.quantities.larger")
    assert tool.name == "larger"
    with pytest.raises(ToolError, match=problem):
        asyncio.run(tool(first=first, second="4 km"))
