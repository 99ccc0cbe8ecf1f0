"""From gold paths to questions in plain words: a balanced, deterministic sample for each split."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from mgrpo_lightning.records.question import Evidence, Question, Split
from mgrpo_lightning.tasks.factbook.facts import Fact, Facts
from mgrpo_lightning.tasks.factbook.paths import COMPARISON, Comparison, Path, comparisons, paths
from mgrpo_lightning.tasks.factbook.relations import GENERAL, RELATIONS, lookup
from mgrpo_lightning.tasks.factbook.split import question_split


def level_name(hops: int) -> str:
    """How tables name a number of hops."""
    return "1 hop" if hops == 1 else f"{hops} hops"


def generate(
    facts: Facts,
    *,
    hops: Sequence[int],
    with_comparisons: bool = False,
    seed: int = 0,
    split: Split,
) -> list[Question]:
    """Questions over a world: equally many of each level, in an order in which every prefix is mixed like the whole.

    Args:
        facts: Of the world.
        hops: Which numbers of hops.
        with_comparisons: Whether to compare countries too.
        seed: Another seed, another sample, order and wording; never another split.
        split: Only the questions of this split.
    """
    levels = [_level(level_name(n), paths(facts, n), facts.twins, seed, split) for n in sorted(hops)]
    if with_comparisons:
        levels.append(_level(COMPARISON, comparisons(facts), facts.twins, seed, split))
    # Lazily: the smallest level ends it, and most paths of the others never become a question.
    return [question for row in zip(*levels, strict=False) for question in row]


def _level(
    level: str, found: Iterable[Path | Comparison], twins: Collection[Fact], seed: int, split: Split
) -> Iterator[Question]:
    """The questions of one level, first one of every kind about every answer, then a second one, and so on.

    Trade partners are few: without this order, most multi-hop questions would be about the same three countries.
    """
    kept = [path for path in found if _split(path) == split]
    random.Random(f"{seed} {level}").shuffle(kept)
    seen: Counter[tuple[str, str, str]] = Counter()
    ranks = []
    for path in kept:
        group = (path.kind, path.final.url, path.final.relation)
        ranks.append(seen[group])
        seen[group] += 1
    order = sorted(range(len(kept)), key=ranks.__getitem__)
    # Twins go last of all, so that the questions that stay keep their order.
    questions = (_question(kept[i], level, seed) for i in order if not _ambiguous(kept[i], twins))
    yield from (question for question in questions if not _given_away(question))


def _ambiguous(path: Path | Comparison, twins: Collection[Fact]) -> bool:
    """Whether a reader may take the value that it begins with for another country's."""
    return isinstance(path, Path) and path.start in twins


def _split(path: Path | Comparison) -> Split | None:
    return question_split((fact.url for fact in path.facts), answer_url=path.final.url)


def _question(path: Path | Comparison, level: str, seed: int) -> Question:
    if isinstance(path, Comparison):
        return _comparison(path, seed)
    hops = path.evidence
    identity = " > ".join([hops[0].subject, *(hop.relation for hop in hops)])
    wording = random.Random(f"{seed} {identity}")
    relation = RELATIONS[path.final.relation]
    template = wording.choice((*relation.ask, *GENERAL))
    text = template.format(phrase=relation.phrase, x=_country(hops))
    return Question(identity, text, (path.final.value,), level, hops)


def _comparison(pair: Comparison, seed: int) -> Question:
    identity = f"{pair.kind} > {pair.larger.title} > {pair.smaller.title}"
    first, second = random.Random(f"{seed} {identity}").sample([fact.evidence for fact in pair.facts], 2)
    text = RELATIONS[pair.kind].compare.format(a=first.subject, b=second.subject)
    return Question(identity, text, (pair.larger.title,), COMPARISON, (first, second))


def _country(hops: Sequence[Evidence]) -> str:
    """The country of the last hop in words: ``the top export partner of the country whose capital is Paris``."""
    words = hops[0].subject
    for hop in hops[:-1]:
        step = lookup(hop)
        named = f"the country {step.relation.clause}" if step.inverse else step.relation.link
        words = named.format(v=words, x=words)
    return words


def _given_away(question: Question) -> bool:
    """Whether the answer stands in the question (the choices of a comparison must)."""
    answer = re.escape(question.answers[0])
    found = re.search(rf"(?<!\w){answer}(?!\w)", question.text, re.IGNORECASE)
    return found is not None and question.level != COMPARISON
