"""Storyteller: retell a transcript with invented names and numbers, so that nothing in it can be learnt by heart.

What stays is the shape of the Factbook and of the team's protocol: headings, labels, the words around the facts. What
changes, consistently within a transcript, is every country, every other name, every number and the answer. A country's
URL changes with its title, and so does what is derived from it: the `Norwegian` of Norway keeps the stem of the new
name. The new names are pseudo-words made of pieces of words and of the tokenizer's own tokens, so that every embedding
takes part in copying.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence

from mgrpo_lightning.tasks.factbook.cleaning import slug

PROTOCOL = frozenset(
    """What Which Name Find How When On January February March April May June July August September October November
    December UTC No error HINT""".split()  # noqa: SIM905
)
"""Capitalised words of questions, notices and values that are shape, not content."""

WORD = re.compile(r"[^\W\d_]+")
SIMPLE, LONG = 0.4, 0.2
"""Shares of titles that become one word, and that take the shape of a long title, brackets included."""
_RANK, _TITLE, _URL, _ANSWER, _NAME, _NUMBER, _CODE = "rank", "title", "url", "answer", "name", "number", "code"


def syllables(texts: Iterable[str]) -> list[str]:
    """Pieces of two to four letters of words in `texts`, as often as they occur there, in a fixed order."""
    pieces: list[str] = []
    for text in texts:
        pieces += re.findall(r"[bcdfghjklmnpqrstvwxz]{1,2}[aeiouy]{1,2}", text.lower())
    return sorted(pieces)


class Storyteller:
    """Retells transcripts.

    Args:
        titles: All page titles of the world; none of them stays, held-out ones included.
        labels: All headings and labels; their capitalised words stay.
        pieces: What pseudo-words are made of, for instance `syllables`.
    """

    def __init__(self, titles: Sequence[str], labels: Iterable[str], pieces: Sequence[str]) -> None:
        words = (word for label in labels for word in WORD.findall(label))
        # Some labels name countries (`French Guiana - total`): there, too, none stays.
        self._keep = (PROTOCOL | {word for word in words if word != word.lower()}) - set(titles)
        self._pieces = pieces
        self._titles = sorted(titles, key=len, reverse=True)
        self._long_titles = [title for title in self._titles if " " in title]
        self._slugs = {slug(title): title for title in titles}
        self._known = "|".join(re.escape(title) for title in self._titles)
        self._plain = self._compile(())

    def retell(self, texts: Sequence[str], answers: Sequence[str], *, seed: int) -> list[str]:
        """The texts of one transcript with new names.

        Args:
            texts: Contents of its messages, calls in JSON included, without the system prompt.
            answers: What is asked for; replaced as a whole where it is no title.
            seed: Another seed, another story.
        """
        generator = random.Random(seed)
        new: dict[str, str] = {}
        stems: dict[str, str] = {}
        whole = [answer for answer in answers if answer[:1].islower()]
        pattern = self._compile(whole) if whole else self._plain

        def replace(match: re.Match[str]) -> str:
            kind, old = str(match.lastgroup), match.group()
            if kind == _RANK or old in self._keep:
                return old
            if kind == _URL:
                title = self._slugs.get(old.removeprefix("factbook/"))
                return f"factbook/{slug(made(_TITLE, title))}" if title else old
            return made(kind, old)

        def made(kind: str, old: str) -> str:
            if old not in new:
                derived = self._derive(old, stems, generator) if kind == _NAME else None
                new[old] = derived or self._invent(kind, old, generator)
                if kind == _TITLE:
                    # Of titles with different numbers of words, the last ones belong together.
                    pairs = list(zip(reversed(WORD.findall(old)), reversed(WORD.findall(new[old])), strict=False))
                    stems.update(pair for pair in pairs if pair[0] != pair[1])
            return new[old]

        return [pattern.sub(replace, text) for text in texts]

    def _compile(self, answers: Sequence[str]) -> re.Pattern[str]:
        whole = "|".join(re.escape(answer) for answer in answers) or "(?!)"
        return re.compile(
            r"(?P<rank>^\d+\. )|(?P<url>factbook/[a-z0-9-]+)"
            rf"|\b(?P<title>{self._known})\b|(?<!\w)(?P<answer>{whole})(?!\w)"
            r"|(?P<code>(?<![\w.])\.[a-z]{2}\b)|(?P<name>[^\W\d_]*[A-Z][^\W\d_]*)|(?P<number>\d+)",
            re.MULTILINE,
        )

    def _invent(self, kind: str, old: str, generator: random.Random) -> str:
        if kind == _NUMBER:
            return self._number(old, generator)
        if kind == _CODE:
            return "." + "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=2))
        chance = generator.random()
        if kind == _TITLE and chance < SIMPLE:
            return self._pseudo(generator.randint(1, 3), generator).capitalize()
        if kind == _TITLE and chance < SIMPLE + LONG:
            old = generator.choice(self._long_titles or self._titles)
        return WORD.sub(lambda word: self._like(word.group(), generator), old)

    def _derive(self, word: str, stems: Mapping[str, str], generator: random.Random) -> str | None:
        """A word that shares its beginning with a word of a title, on the beginning of that one's new form."""
        for old, new in stems.items():
            shared = next((i for i, pair in enumerate(zip(old, word, strict=False)) if len(set(pair)) == 2), len(old))
            if shared < max(3, min(4, len(old) - 1)):
                continue
            # Where the ending starts is never certain: Tunis-ian is as good as Tunisia-n.
            shared -= generator.randint(0, 1)
            derived = new[: max(2, len(new) - (len(old) - shared))] + word[shared:]
            return None if derived in self._slugs.values() else derived
        return None

    def _number(self, old: str, generator: random.Random) -> str:
        """As many digits; a number that starts with a zero still does."""
        first = generator.choice("123456789") if old[0] != "0" else "0"
        if len(old) == 4 and old[:2] in ("18", "19", "20"):
            return generator.choice(("18", "19", "20")) + "".join(generator.choices("0123456789", k=2))
        return first + "".join(generator.choices("0123456789", k=len(old) - 1))

    def _like(self, word: str, generator: random.Random) -> str:
        """A pseudo-word that is written like `word`; short lower-case words and kept words stay."""
        if word in self._keep or word in ("and", "of", "the", "Saint", "Islands"):
            return word
        if word.isupper():
            return "".join(generator.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=len(word)))
        length = max(1, min(4, round(len(word) / 2.7)))
        pseudo = self._pseudo(length, generator)
        return pseudo.capitalize() if word[0].isupper() else pseudo

    def _pseudo(self, length: int, generator: random.Random) -> str:
        while True:
            word = "".join(generator.choices(self._pieces, k=length)) + generator.choice(
                ("", "", "n", "r", "s", "l", "t")
            )
            # By chance it may be Mali or Cuba.
            if word not in self._slugs:
                return word
