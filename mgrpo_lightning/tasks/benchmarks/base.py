"""Benchmark: held-out questions with a rule that is the official one, and a judge where the rule finds no match."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from typing_extensions import override

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tasks.judged import JudgedTask
from mgrpo_lightning.tools.sets import ToolSet


class Benchmark(JudgedTask):
    """Questions to be asked, never to be trained on: validation and test have all of them.

    Args:
        questions: In the order of the file.
        judge: Decides about answers that the rule does not match; None: they are wrong.
        tools: Dotted paths of functions, or sets of tools, that roles may call by their bare names.

    Raises:
        DataError: There is no question, or two have one id.
        ConfigurationError: A tool does not exist.
    """

    def __init__(
        self, questions: Sequence[Question], *, judge: Judge | None = None, tools: Sequence[str | ToolSet] = ()
    ) -> None:
        super().__init__(judge, tools)
        if not questions:
            raise DataError("the benchmark has no question that fits its filters.", hint="give less of them.")
        ids = Counter(question.id for question in questions)
        if double := next((name for name, count in ids.items() if count > 1), None):
            raise DataError(f"two questions have the id {double!r}.", hint="give the file of one split only.")
        self._questions = list(questions)

    @override
    def questions(self, split: Split) -> Sequence[Question]:
        return [] if split == "train" else self._questions


def inside(folder: Path, name: str) -> Path:
    """The absolute path of a file below a folder; a name that leads elsewhere is refused.

    Only the name is checked: the hub's cache is a tree of links to files that lie outside the folder.

    Args:
        folder: Of a benchmark.
        name: Path below it, from one of its rows.

    Raises:
        DataError: It is no file of the folder.
    """
    below = os.path.normpath(name)
    path = Path(os.path.abspath(folder), below)
    if os.path.isabs(below) or ".." in PurePath(below).parts or not path.is_file():
        raise DataError(f"{folder} has no file {name!r}, which a row names.", hint="get the benchmark as a whole.")
    return path
