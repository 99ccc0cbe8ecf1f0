"""Generate questions from gold paths: wording, balanced levels, split; leave out ambiguous and given-away ones."""

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
    """Return the level name of a number of hops, as tables show it."""
    return "1 hop" if hops == 1 else f"{hops} hops"


def generate(
    facts: Facts,
    *,
    hops: Sequence[int],
    with_comparisons: bool = False,
    seed: int = 0,
    split: Split,
) -> list[Question]:
    """Generate questions: the same number for each level, and the levels take turns.

    Args:
        facts: Facts of the world.
        hops: Numbers of hops, one level for each.
        with_comparisons: Whether to add a level of comparisons.
        seed: Seed of the selection, order and wording; it does not change the split.
        split: Split to generate.
    """
    levels = [_level(level_name(n), paths(facts, n), facts.twins, seed, split) for n in sorted(hops)]
    if with_comparisons:
        levels.append(_level(COMPARISON, comparisons(facts), facts.twins, seed, split))
    # The levels are iterators: zip stops at the smallest level, so most paths of the others are never made a question.
    return [question for row in zip(*levels, strict=False) for question in row]


def _level(
    level: str, found: Iterable[Path | Comparison], twins: Collection[Fact], seed: int, split: Split
) -> Iterator[Question]:
    """Yield the questions of one level: first one question for each (kind, answer), then a second one, and so on.

    Few countries are top trade partners. Without this order, most multi-hop questions would be about the same three
    countries.
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
    # Twins are removed last, after the shuffle and the sort, so that the other questions keep their order.
    questions = (_question(kept[i], level, seed) for i in order if not _ambiguous(kept[i], twins))
    yield from (question for question in questions if not _given_away(question))


def _ambiguous(path: Path | Comparison, twins: Collection[Fact]) -> bool:
    """Whether a reader may confuse the path's first value with another country's value."""
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
    """Describe the country of the last hop: ``the top export partner of the country whose capital is Paris``."""
    words = hops[0].subject
    for hop in hops[:-1]:
        step = lookup(hop)
        named = f"the country {step.relation.clause}" if step.inverse else step.relation.link
        words = named.format(v=words, x=words)
    return words


def _given_away(question: Question) -> bool:
    """Whether the question contains its answer; a comparison must, because it names both choices."""
    answer = re.escape(question.answers[0])
    found = re.search(rf"(?<!\w){answer}(?!\w)", question.text, re.IGNORECASE)
    return found is not None and question.level != COMPARISON
