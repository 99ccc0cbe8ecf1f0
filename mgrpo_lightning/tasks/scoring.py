"""How answers are compared: exact match, token F1 (HotpotQA's and SQuAD 2.0's) and GAIA's rule. No judge, no tolerance.

Every rule compares texts as they are seen: in Unicode's composed form (NFC), without invisible characters.
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
    """A text without what never matters in an answer: case, surrounding and repeated space, trailing punctuation.

    Nor do invisible characters and the choice between composed and decomposed accents.
    """
    return " ".join(visible(text).split()).rstrip(" .,;:!?").casefold()


def exact_match(answer: str | None, golds: Sequence[str]) -> float:
    """1.0 if the answer equals one of the accepted ones up to ``fold``, else 0.0.

    An accepted answer that is nothing but punctuation is compared as it is.
    """
    if answer is None:
        return 0.0
    return float(any(_same(answer, gold) for gold in golds))


def _same(answer: str, gold: str) -> bool:
    return fold(answer) == fold(gold) if fold(gold) else visible(answer).strip() == visible(gold).strip()


def hotpot_normalise(text: str) -> str:
    """HotpotQA's normal form: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", visible(text).lower().translate(_NO_PUNCTUATION)).split())


def token_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Largest F1 of shared tokens over the accepted answers, after HotpotQA's normalisation.

    ``yes``, ``no`` and ``noanswer`` must match exactly or score 0.
    """
    if answer is None:
        return 0.0
    return max((_f1(hotpot_normalise(answer), hotpot_normalise(gold)) for gold in golds), default=0.0)


def squad_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Token F1 as SQuAD 2.0 and MuSiQue have it: ``token_f1`` without its rule for yes and no.

    Where answer or gold is nothing but articles and punctuation, F1 is 1 if both are, else 0.
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
    return 2 * shared / (len(answered) + len(wanted)) if shared else 0.0


def gaia_rule(answer: str | None, gold: str) -> float:
    """GAIA's official scorer: 1.0 or 0.0.

    A numeric gold answer needs an equal number once ``$ % ,`` are gone; one with ``,`` or ``;`` is a list, compared
    element by element and in order; anything else is compared without white space, punctuation and case.
    """
    if answer is None:
        return 0.0
    answer, gold = visible(answer), visible(gold)
    if _is_float(gold):
        return float(_number(answer) == float(gold))
    if "," in gold or ";" in gold:
        answered, wanted = re.split("[,;]", answer), re.split("[,;]", gold)
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
    """The number, None if it is none; never inf for that, since "inf" is itself a float."""
    bare = re.sub("[$%,]", "", text)
    return float(bare) if _is_float(bare) else None
