"""MultiHop: multi-hop questions with paragraphs of their own, to be trained on or asked, in a world of these."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

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
    """Questions of up to three files, one a split, with search and visit over the paragraphs of all of them.

    Args:
        path: File of the training questions; None where nothing is trained.
        validation_path: File of the validation questions; None leaves that split empty.
        test_path: File of the test questions; None leaves that split empty.
        backend: Name of the search backend.

    Raises:
        DataError: A file is not there, or a row is none of this benchmark's.
    """

    source: ClassVar[Source]

    def __init__(
        self,
        path: str | None = None,
        validation_path: str | None = None,
        test_path: str | None = None,
        backend: str = "fts5",
    ) -> None:
        paths: dict[Split, str | None] = {"train": path, "validation": validation_path, "test": test_path}
        examples = {
            split: [self.example(row) for row in read_rows(located(file, self.source))]
            for split, file in paths.items()
            if file is not None
        }
        self._world = ParagraphWorld(_paragraphs(examples.values()), backend=backend)
        self._questions = {split: [self._linked(one) for one in found] for split, found in examples.items()}

    @staticmethod
    @abstractmethod
    def example(row: Row) -> Example:
        """What a row of a file says.

        Args:
            row: As read.

        Raises:
            DataError: It is of another layout.
        """

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
