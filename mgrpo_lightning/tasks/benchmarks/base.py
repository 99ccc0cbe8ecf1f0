"""Benchmark: base class of evaluation-only questions: official rule, then a judge; refuses duplicate ids."""

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
    """Questions for evaluation only: the validation and the test split both hold all of them; train is empty.

    Args:
        questions: Questions in file order.
        judge: Judge of answers that the rule does not match; None: such answers are wrong.
        tools: Dotted paths of functions, or sets of tools; roles call them by their bare names.

    Raises:
        DataError: There is no question, or two questions have the same id.
        ConfigurationError: A tool does not exist.
    """

    def __init__(
        self, questions: Sequence[Question], *, judge: Judge | None = None, tools: Sequence[str | ToolSet] = ()
    ) -> None:
        super().__init__(judge, tools)
        if not questions:
            raise DataError("the benchmark has no question that passes the filters.", hint="remove a filter.")
        ids = Counter(question.id for question in questions)
        if double := next((name for name, count in ids.items() if count > 1), None):
            raise DataError(f"two questions have the id {double!r}.", hint="give the file of one split only.")
        self._questions = list(questions)

    @override
    def questions(self, split: Split) -> Sequence[Question]:
        return [] if split == "train" else self._questions


def inside(folder: Path, name: str) -> Path:
    """Return the absolute path of a file in a folder; refuse a name that leaves the folder, such as ``../x``.

    Only the name is checked and symbolic links are not resolved: files in the hub's cache are links to files outside
    the folder.

    Args:
        folder: Folder of the benchmark.
        name: Relative path from one of the benchmark's rows.

    Raises:
        DataError: The file does not exist, or is not in the folder.
    """
    below = os.path.normpath(name)
    path = Path(os.path.abspath(folder), below)
    if os.path.isabs(below) or ".." in PurePath(below).parts or not path.is_file():
        raise DataError(f"{folder} lacks the file {name!r}, which a row names.", hint="download the whole benchmark.")
    return path
