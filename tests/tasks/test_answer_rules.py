"""Scorers against truth tables: the exact rule, HotpotQA's F1, SQuAD's (MuSiQue), GAIA's official rule."""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.tasks.answer_rules import exact_match, fold, gaia_rule, hotpot_normalise, squad_f1, token_f1


@pytest.mark.parametrize(
    ("answer", "golds", "right"),
    [
        ("Mont Blanc", ["Mont Blanc"], True),
        ("  mont   BLANC. ", ["Mont Blanc"], True),
        ("Mont Blanc", ["Mont Blanc!"], True),
        ("Blanc", ["Mont Blanc"], False),
        ("the Mont Blanc", ["Mont Blanc"], False),
        ("68512806", ["68,512,806"], False),
        ("fr", [".fr"], False),
        (".FR", [".fr"], True),
        ("Samuel Clemens", ["Mark Twain", "Samuel Clemens"], True),
        ("", ["Mont Blanc"], False),
        ("...", ["!"], False),
        (None, ["Mont Blanc"], False),
    ],
)
def test_exact_match(answer: str | None, golds: list[str], right: bool) -> None:
    assert exact_match(answer, golds) == float(right)


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("The Mont Blanc", "mont blanc", 1.0),
        ("Mont Blanc massif", "Mont Blanc", 0.8),
        ("a cat cat", "cat dog", 0.5),
        ("yes", "yes", 1.0),
        ("yes it is", "yes", 0.0),
        ("no", "no way", 0.0),
        ("noanswer", "Mont Blanc", 0.0),
        ("the", "the", 0.0),
        ("U.S.A.", "usa", 1.0),
        (None, "x", 0.0),
        ("", "x", 0.0),
    ],
)
def test_token_f1(answer: str | None, gold: str, score: float) -> None:
    assert token_f1(answer, [gold]) == pytest.approx(score)


def test_token_f1_takes_the_best_of_several_answers() -> None:
    assert token_f1("Mark Twain", ["Samuel Clemens", "Twain"]) == pytest.approx(2 / 3)


@given(st.text(max_size=30), st.text(max_size=30))
def test_token_f1_is_symmetric_and_a_share(one: str, other: str) -> None:
    assert token_f1(one, [other]) == token_f1(other, [one])
    assert 0 <= token_f1(one, [other]) <= 1


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        # A number: $ % , are stripped from the answer only, then exact equality of floats.
        ("17", "17", True),
        ("17.0", "17", True),
        ("$1,234.50", "1234.5", True),
        ("17%", "17", True),
        ("17.01", "17", False),
        ("17 km", "17", False),
        ("seventeen", "17", False),
        ("inf", "inf", True),
        ("no number", "inf", False),
        ("nan", "nan", False),
        ("", "0", False),
        # "1,234" is no float, hence a list of two numbers.
        ("1,234", "1,234", True),
        ("1234", "1,234", False),
        # Lists: same length, in order, numbers as numbers, texts with punctuation.
        ("a, b", "a,b", True),
        ("a; b", "a,b", True),
        ("A , B", "a;b", True),
        ("b, a", "a, b", False),
        ("a, b, c", "a, b", False),
        ("a, b.", "a, b", False),
        ("1.0, x", "1, x", True),
        ("$1, x", "1, x", True),
        ("one, x", "1, x", False),
        # Texts: no white space, punctuation or case.
        ("Mont-Blanc", "mont blanc", True),
        ("St. Louis", "st louis", True),
        ("sea gull", "seagull", True),
        ("the gull", "gull", False),
        ("café", "cafe", False),
        ("", "x", False),
        (None, "x", False),
        (None, "1", False),
    ],
)
def test_gaia_rule(answer: str | None, gold: str, right: bool) -> None:
    assert gaia_rule(answer, gold) == float(right)


def official_musique_f1(gold: str, predicted: str) -> float:
    """Of StonyBrookNLP/musique, ``metrics/answer.py``, as it is written there (SQuAD 2.0's)."""

    def tokens(text: str) -> list[str]:
        text = "".join(character for character in text.lower() if character not in set(string.punctuation))
        return re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split()

    wanted, answered = tokens(gold), tokens(predicted)
    common = sum((Counter(wanted) & Counter(answered)).values())
    if not wanted or not answered:
        return int(wanted == answered)
    if not common:
        return 0
    precision, recall = common / len(answered), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


WORDS = st.lists(
    st.sampled_from(["yes", "no", "noanswer", "the", "a", "...", "!", "Blue", "boat", "Boat."]), max_size=4
)


@given(WORDS, WORDS)
def test_musique_s_f1_is_its_script_s(gold: list[str], answer: list[str]) -> None:
    wanted, given_answer = " ".join(gold), " ".join(answer)
    assert squad_f1(given_answer, [wanted]) == pytest.approx(official_musique_f1(wanted, given_answer))


@pytest.mark.parametrize(
    ("answer", "gold", "musique", "hotpot"),
    [("yes it is", "yes", 0.5, 0.0), ("no", "no way", 2 / 3, 0.0), ("the", "the", 1.0, 0.0), ("it", "the", 0.0, 0.0)],
)
def test_the_two_f1_differ_where_gold_is_yes_or_nothing(answer: str, gold: str, musique: float, hotpot: float) -> None:
    assert squad_f1(answer, [gold]) == pytest.approx(musique)
    assert token_f1(answer, [gold]) == hotpot
    assert squad_f1(None, [gold]) == squad_f1(answer, []) == 0


RULES: dict[str, Callable[[str, str], float]] = {
    "exact": lambda answer, gold: exact_match(answer, [gold]),
    "hotpot": lambda answer, gold: float(hotpot_normalise(answer) == hotpot_normalise(gold)),
    "token F1": lambda answer, gold: token_f1(answer, [gold]),
    "SQuAD F1": lambda answer, gold: squad_f1(answer, [gold]),
    "GAIA": gaia_rule,
    "GAIA, a list": lambda answer, gold: gaia_rule(f"x, {answer}", f"x, {gold}"),
}
UNSEEN = [*"\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u202e\u034f\u3164\ufe0f\u2800\x00\x7f", "\U000e0041"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gold", ["Paris", "r\u00e9", "re\u0301", "\u1e69", "s\u0307\u0323", "17", "\uac00"])
def test_every_rule_compares_what_is_seen(rule: str, gold: str) -> None:
    same = RULES[rule]
    for form in ("NFC", "NFD"):
        answer = unicodedata.normalize(form, gold)
        assert same(answer, gold) == 1.0
        for unseen in UNSEEN:
            assert same(f"{unseen}{answer[0]}{unseen}{answer[1:]}{unseen}", gold) == 1.0, ascii(unseen)
            assert same(answer, f"{gold[0]}{unseen}{gold[1:]}") == 1.0, ascii(unseen)
    assert same("Lyon", gold) == 0.0


def test_what_unicode_calls_invisible_is_removed_and_nothing_that_is_seen() -> None:
    """Format characters but those that have a shape (such as the Arabic number signs), and controls but space."""
    shown = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0xFFF9, 0xFFFC)}
    shown |= {*range(0x13430, 0x13440)}  # they arrange hieroglyphs
    for code in range(sys.maxunicode + 1):
        character, kind = chr(code), unicodedata.category(chr(code))
        if kind in ("Cf", "Cc") and code not in shown and not character.isspace():
            assert fold(character) == "", ascii(character)
        if kind[0] in "LNPS" and unicodedata.normalize("NFC", character) not in " .,;:!?\u115f\u1160\u3164\uffa0\u2800":
            assert fold(character), ascii(character)
