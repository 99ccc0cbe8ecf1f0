"""MultiHop: multi-hop questions with paragraphs of their own, to be trained on or asked, in a world of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override

from mgrpo_lightning.tasks.base import Evidence, Question, Split, Task
from mgrpo_lightning.tasks.benchmarks.paragraphs import SECTION, Paragraph, ParagraphWorld
from mgrpo_lightning.tasks.benchmarks.rows import Row, Source, located, read_rows
from mgrpo_lightning.tasks.scoring import hotpot_normalise
from mgrpo_lightning.tools.base import Tool
from mgrpo_lightning.trajectory import Trajectory


@dataclass(frozen=True)
class Hop:
    """A paragraph that the answer rests on, and what its hop finds, where the benchmark says it."""

    title: str
    found: str = ""


@dataclass(frozen=True)
class Example:
    """One row."""

    question: Question
    paragraphs: Sequence[Paragraph]
    hops: Sequence[Hop]


class MultiHop(Task):
    """Questions of up to three files, one a split, over the paragraphs of all of them.

    Args:
        paths: By split; None leaves it empty.
        read: Makes an example of a row.
        source: Of the benchmark.
        backend: Name of the search backend.

    Raises:
        DataError: A file is not there, or not of this benchmark.
    """

    def __init__(
        self, paths: Mapping[Split, str | None], read: Callable[[Row], Example], source: Source, *, backend: str
    ) -> None:
        examples = {
            split: [read(row) for row in read_rows(located(path, source))]
            for split, path in paths.items()
            if path is not None
        }
        self._world = ParagraphWorld(_paragraphs(examples.values()), backend=backend)
        self._questions = {split: [self._linked(one) for one in found] for split, found in examples.items()}

    @override
    def questions(self, split: Split) -> Sequence[Question]:
        return self._questions.get(split, [])

    @override
    async def correct(self, question: Question, answer: str | None) -> float:
        """Exact match up to case, punctuation and articles, as the official script has it."""
        if answer is None:
            return 0.0
        return float(hotpot_normalise(answer) in map(hotpot_normalise, question.answers))

    @override
    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        """1.0 if a paragraph that the answer rests on was read and, where it is known, the report is what it says."""
        visits = [call for call in trajectory.calls if call.name == "visit" and not call.failed]
        visited = {str(call.arguments.get("url", "")).strip() for call in visits}
        report = hotpot_normalise(trajectory.answer or "")
        read = [hop for hop in question.evidence if hop.url in visited]
        return float(any(not hop.value or hotpot_normalise(hop.value) == report for hop in read))

    @override
    def tools(self) -> Mapping[str, Tool]:
        return self._world.tools

    def _linked(self, example: Example) -> Question:
        question = example.question
        evidence = tuple(Evidence(self._world.url(hop.title), SECTION, hop.found) for hop in example.hops)
        return Question(question.id, question.text, question.answers, question.level, evidence)


def _paragraphs(splits: Iterable[Sequence[Example]]) -> Iterable[Paragraph]:
    return (paragraph for examples in splits for example in examples for paragraph in example.paragraphs)
