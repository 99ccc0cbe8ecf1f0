"""Score an answer without a judge: exact match, token F1 (HotpotQA, SQuAD 2.0), GAIA's rule; normalise texts first.

Every rule first normalises both texts to Unicode's composed form (NFC) and removes invisible characters.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from mgrpo_lightning.unicode import visible

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = frozenset({"yes", "no", "noanswer"})


def fold(text: str) -> str:
    """Normalise a text for exact match: no case, no extra space, no trailing punctuation, no invisible characters.

    Composed and decomposed accents become equal.
    """
    return " ".join(visible(text).split()).rstrip(" .,;:!?").casefold()


def exact_match(answer: str | None, golds: Sequence[str]) -> float:
    """Return 1.0 if the answer equals an accepted answer after ``fold``, else 0.0.

    An accepted answer of punctuation only is compared without ``fold``, which would make it empty.
    """
    if answer is None:
        return 0.0
    return float(any(_same(answer, gold) for gold in golds))


def _same(answer: str, gold: str) -> bool:
    return fold(answer) == fold(gold) if fold(gold) else visible(answer).strip() == visible(gold).strip()


def hotpot_normalise(text: str) -> str:
    """Normalise a text like HotpotQA's script: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", visible(text).lower().translate(_NO_PUNCTUATION)).split())


def token_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Return the largest token F1 over the accepted answers, after HotpotQA's normalisation.

    ``yes``, ``no`` and ``noanswer`` must match exactly, else the score is 0.
    """
    if answer is None:
        return 0.0
    return max((_f1(hotpot_normalise(answer), hotpot_normalise(gold)) for gold in golds), default=0.0)


def squad_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Return token F1 as SQuAD 2.0 and MuSiQue define it: ``token_f1`` without the special rule for yes and no.

    If the answer or the gold answer is empty after normalisation, F1 is 1 if both are empty, else 0.
    """
    if answer is None:
        return 0.0
    pairs = ((hotpot_normalise(answer), hotpot_normalise(gold)) for gold in golds)
    return max((_overlap(one, gold) if one and gold else float(one == gold) for one, gold in pairs), default=0.0)


def _f1(answer: str, gold: str) -> float:
    if answer != gold and (answer in _CLOSED or gold in _CLOSED):
        return 0.0
    return _overlap(answer, gold)


def _overlap(answer: str, gold: str) -> float:
    answered, wanted = answer.split(), gold.split()
    shared = sum((Counter(answered) & Counter(wanted)).values())
    # F1 = 2PR / (P + R) with P = shared / answered and R = shared / wanted.
    return 2 * shared / (len(answered) + len(wanted)) if shared else 0.0


def gaia_rule(answer: str | None, gold: str) -> float:
    """Score an answer like GAIA's official scorer: 1.0 or 0.0.

    If the gold answer is a number, the answer must be the same number after ``$``, ``%`` and ``,`` are removed. A gold
    answer with ``,`` or ``;`` is a list, compared element by element in order. Any other gold answer is compared
    without white space, punctuation and case.
    """
    if answer is None:
        return 0.0
    answer, gold = visible(answer), visible(gold)
    if _is_float(gold):
        return float(_number(answer) == float(gold))
    if "," in gold or ";" in gold:
        answered, wanted = re.split("[,;]", answer), re.split("[,;]", gold)
        # Lengths first, because map stops at the end of the shorter list.
        return float(len(answered) == len(wanted) and all(map(_element_equal, answered, wanted)))
    return float(_squeeze(answer).translate(_NO_PUNCTUATION) == _squeeze(gold).translate(_NO_PUNCTUATION))


def _element_equal(answer: str, gold: str) -> bool:
    return _number(answer) == float(gold) if _is_float(gold) else _squeeze(answer) == _squeeze(gold)


def _squeeze(text: str) -> str:
    return "".join(text.split()).lower()


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float | None:
    """Parse a number without ``$ % ,``; None if it is not a number (GAIA's scorer uses inf, but "inf" is a float)."""
    bare = re.sub("[$%,]", "", text)
    return float(bare) if _is_float(bare) else None
