"""MultiHop: base class of tasks whose rows bring paragraphs: splits, search and visit in them, expert, exact match."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from mgrpo_lightning.errors import DataError, ScoringError
from mgrpo_lightning.records.question import Evidence, Question, Split
from mgrpo_lightning.records.trajectory import Trajectory
from mgrpo_lightning.tasks.answer_rules import hotpot_normalise
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tasks.benchmarks.dataset_files import DatasetRow, Source, files_of, located, read_rows
from mgrpo_lightning.tasks.benchmarks.paragraphs import SECTION, Paragraph, ParagraphWorld
from mgrpo_lightning.tools.base import Tool


@dataclass(frozen=True)
class Hop:
    """Title of a supporting paragraph, and the answer of its hop, if the benchmark gives it (else empty)."""

    title: str
    found: str = ""


@dataclass(frozen=True)
class Example:
    """One row of a file: the question, all its paragraphs, and its hops."""

    question: Question
    paragraphs: Sequence[Paragraph]
    hops: Sequence[Hop]


class MultiHop(Task):
    """Questions of up to three splits; search and visit cover the paragraphs of all of them.

    Each path is a file, a folder, or the name of a dataset on the hub. From a folder or dataset, the files of the split
    are read.

    Args:
        path: Path of the training questions; None leaves that split empty.
        validation_path: Path of the validation questions; None leaves that split empty.
        test_path: Path of the test questions, whose answers may be unknown; None leaves that split empty.
        backend: Name of the search backend.

    Raises:
        DataError: A file is missing, a row has another layout, or a training question has no answer.
    """

    source: ClassVar[Source]
    patterns: ClassVar[Mapping[Split, Sequence[str]]]
    """File name patterns of each split, in the benchmark's own folder and in its copies on the hub."""

    def __init__(
        self,
        path: str | None = None,
        validation_path: str | None = None,
        test_path: str | None = None,
        backend: str = "fts5",
    ) -> None:
        paths: dict[Split, str | None] = {"train": path, "validation": validation_path, "test": test_path}
        examples = {
            split: [self.example(row) for row in read_rows(self._files(split, given), self.source)]
            for split, given in paths.items()
            if given is not None
        }
        for split, found in examples.items():
            names = Counter(one.question.id for one in found)
            if bare := [one.question.id for one in found if not one.paragraphs]:
                raise DataError(
                    f"question {bare[0]!r} has no paragraphs to search.", hint="give a file with paragraphs."
                )
            if twice := [name for name, count in names.items() if count > 1]:
                raise DataError(f"split {split} has question {twice[0]!r} twice.", hint="remove or rename one.")
        # Evaluation may lack answers, for a leaderboard. Training cannot: there would be no reward.
        if unknown := [one.question.id for one in examples.get("train", ()) if not one.question.known]:
            raise DataError(f"the training question {unknown[0]} has no answer.", hint="train on a split with answers.")
        # One world for all splits, so that a search also meets the paragraphs of other questions.
        self._world = ParagraphWorld(_paragraphs(examples.values()), backend=backend)
        self._questions = {split: [self._linked(one) for one in found] for split, found in examples.items()}

    @staticmethod
    @abstractmethod
    def example(row: DatasetRow) -> Example:
        """Convert a row of a file to an example.

        Args:
            row: Row from ``read_rows``, by column name.

        Raises:
            DataError: The row has another layout.
        """

    @property
    @override
    def terms(self) -> str:
        return self.source.terms

    @override
    def questions(self, split: Split) -> Sequence[Question]:
        return self._questions.get(split, [])

    @override
    async def correct(self, question: Question, answer: str | None) -> float:
        """Return 1.0 for an exact match without case, punctuation and articles, like the official script.

        Raises:
            ScoringError: The accepted answer is not public.
        """
        if answer is None:
            return 0.0
        if not question.known:
            raise ScoringError(f"only the benchmark's authors know the answer of {question.id}.")
        return float(hotpot_normalise(answer) in map(hotpot_normalise, question.answers))

    @override
    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        """Return 1.0 if a supporting paragraph was visited and, if its hop's answer is known, the report equals it."""
        visits = [call for call in trajectory.calls if call.name == "visit" and not call.failed]
        visited = {str(call.arguments.get("url", "")).strip() for call in visits}
        report = hotpot_normalise(trajectory.answer or "")
        read = [hop for hop in question.evidence if hop.url in visited]
        return float(any(not hop.value or hotpot_normalise(hop.value) == report for hop in read))

    @override
    def tools(self) -> Mapping[str, Tool]:
        return self._world.tools

    def _files(self, split: Split, given: str) -> list[Path]:
        return files_of(located(given, self.source), self.patterns[split], self.source)

    def _linked(self, example: Example) -> Question:
        question = example.question
        evidence = tuple(Evidence(self._world.url(hop.title), SECTION, hop.found) for hop in example.hops)
        return Question(question.id, question.text, question.answers, question.level, evidence)


def _paragraphs(splits: Iterable[Sequence[Example]]) -> Iterable[Paragraph]:
    return (paragraph for examples in splits for example in examples for paragraph in example.paragraphs)
