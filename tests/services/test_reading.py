"""Bounds of what a server sends: JSON, Retry-After, and its words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.services.reading import (
    LONGEST_PAUSE,
    LONGEST_WORDS,
    MAX_DEPTH,
    UnusableAnswer,
    parse_json,
    retry_after,
    words_of,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *((text, 5.0) for text in (None, "", "\xb2", "-1", "soon", "1e3", "nan", "inf", "\u0663", "0x10")),
        *(("0", 0.0), ("7", 7.0), (" 7 ", 7.0), ("1.5", 1.5), ("3600", 60.0), ("999999999", 60.0)),
        *(("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("Fri, 31 Dec 9999 23:59:59 GMT", 60.0)),
        *(("Fri, 31 Dec 9999 23:59:59 -2359", 60.0), ("Wed, 99 Oct 2015 07:28:00 GMT", 5.0)),
    ],
)
def test_seconds_to_wait_are_read_in_every_form(value: str | None, seconds: float) -> None:
    assert retry_after(value, 5.0) == seconds


def test_a_date_is_waited_for() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < retry_after(soon, 5.0) <= 30


@given(st.text())
def test_whatever_stands_there_the_pause_is_bounded(value: str) -> None:
    assert 0 <= retry_after(value, 5.0) <= LONGEST_PAUSE


NESTED = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(NESTED)
def test_ordinary_json_is_read_as_it_is(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(("depth", "good"), [(MAX_DEPTH - 1, True), (MAX_DEPTH + 1, False), (10**5, False)])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_json_is_bounded_in_depth(opening: str, closing: str, depth: int, good: bool) -> None:
    text = opening * depth + "1" + closing * depth
    if good:
        parse_json(text)
    else:
        with pytest.raises(UnusableAnswer, match="too deeply"):
            parse_json(text)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "no\\n  more", "code": 3}}', "no more"),
        (b'{"error": "no more"}', "no more"),
        (b'{"detail": [{"loc": ["body", "n"], "msg": "no more", "input": "asked"}]}', "body.n: no more"),
        (b'{"errors": ["no", "more"]}', "no; more"),
        (b'{"echo": "what was asked"}', "JSON with the keys echo"),
        (b"[1]", "[1]"),
        (b"5", "5"),
        (b"<html><title>no more</title><p>x</p></html>", "no more"),
        (b"<p>no</p> <b>more", "no more"),
        (b"no\x1b[31m more", "no [31m more"),
        (b"", ""),
    ],
)
def test_a_server_s_words_are_found(body: bytes, words: str) -> None:
    assert words_of(body) == words


@given(st.binary(max_size=3000))
def test_words_are_one_short_line_whatever_was_sent(body: bytes) -> None:
    words = words_of(body)
    assert len(words) <= LONGEST_WORDS + 3
    assert words.isprintable()
