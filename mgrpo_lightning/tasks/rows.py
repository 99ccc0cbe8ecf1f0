"""Questions from rows, whatever they are read from: which values make a question, and the tasks built on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.records.trajectory import Trajectory
from mgrpo_lightning.tasks.chat_messages import BadMessages, question_in
from mgrpo_lightning.tasks.judge import Judge, judged_report
from mgrpo_lightning.tasks.judged import JudgedTask
from mgrpo_lightning.tools.sets import ToolSet
from mgrpo_lightning.unicode import encodable, visible


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a question; ``a.b`` is the value ``b`` of the object in column ``a``."""

    question: str = "question"
    """Text, or a list of chat messages (see ``chat_messages.question_in``)."""
    answer: str = "answer"
    """The accepted answer, or a list of accepted answers."""
    id: str | None = None
    """Id of the question; None: the row's own."""
    level: str | None = None
    """Level of the question; None: there are no levels."""


@dataclass(frozen=True)
class Row:
    """One row, and how to name it in an error."""

    values: Mapping[str, Any]
    id: str
    """Id of the question if there is no column of ids."""
    bad: Callable[[str | None, str], DataError]
    """Makes an error from a column name (None: the whole row) and the problem."""


class RowsTask(JudgedTask):
    """Base of tasks of questions from rows, scored by exact match or a judge.

    Args:
        questions: The questions of each split; splits that are missing are empty.
        tools: Dotted paths of functions, or sets of tools; roles call them by their bare names.
        judge: Judge of answers that do not match exactly; None: such answers are wrong.
        expert: Judge of sub-agents' reports; None: their expert reward is 0.
        table_by: Columns by which result tables are split, in addition to the level.

    Raises:
        ConfigurationError: A tool does not exist, or two tools have the same name.
    """

    def __init__(
        self,
        questions: Mapping[Split, Sequence[Question]],
        tools: Sequence[str | ToolSet],
        judge: Judge | None,
        expert: Judge | None,
        table_by: Sequence[str],
    ) -> None:
        super().__init__(judge, tools)
        self.table_by = tuple(table_by)
        self._questions = questions
        self._expert = expert

    @override
    def questions(self, split: Split) -> Sequence[Question]:
        return self._questions.get(split, [])

    @property
    @override
    def has_expert(self) -> bool:
        return self._expert is not None

    @override
    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        return await judged_report(self._expert, trajectory)


def questions_of(rows: Iterable[Row], columns: Columns, metadata: Sequence[str]) -> list[Question]:
    """Make the questions of rows, in their order.

    Args:
        columns: Names of the columns.
        metadata: More columns to keep as text; a missing value becomes an empty text.

    Raises:
        DataError: A row has no question, no answer or a value of a wrong type, or two rows have the same id.
    """
    questions: dict[str, Question] = {}
    for row in rows:
        question = _question(row, columns, metadata)
        if question.id in questions:
            raise row.bad(None, f"an earlier question has the id {question.id!r} too")
        questions[question.id] = question
    return list(questions.values())


def value_at(values: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column; None if it is missing.

    Args:
        column: Name of a column, or ``a.b`` for the value ``b`` of the object in column ``a``.
    """
    if column in values:
        return values[column]
    found: Any = values
    for name in column.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _question(row: Row, columns: Columns, metadata: Sequence[str]) -> Question:
    given = value_at(row.values, columns.answer)
    answers = list(map(_text, given if isinstance(given, list) else [given]))
    asked = value_at(row.values, columns.question)
    if isinstance(asked, list):
        try:
            asked, _ = question_in(asked)
        except BadMessages as error:
            raise row.bad(columns.question, f"{columns.question!r} is a chat, and {error}") from error
    # Only the question must be text already; ids, levels and metadata may be numbers.
    required = {columns.question: asked}
    if columns.id is not None:
        required[columns.id] = _text(value_at(row.values, columns.id))
    optional = {
        key: _text("" if (value := value_at(row.values, key)) is None else value)
        for key in (*metadata, *([columns.level] if columns.level else []))
    }
    for key, value in (*required.items(), *optional.items()):
        if not isinstance(value, str) or (key in required and not value.strip()):
            raise row.bad(key, f"{key!r} is {value!r}, not text")
    if not answers or not all(isinstance(answer, str) and visible(answer).strip() for answer in answers):
        raise row.bad(columns.answer, f"{columns.answer!r} is {given!r}, not text, a number or a list of these")
    for key, value in (*required.items(), *optional.items(), *((columns.answer, answer) for answer in answers)):
        # JSON allows \ud800 alone, but such text cannot be encoded as UTF-8 and would fail much later.
        if encodable(value) != value:
            raise row.bad(key, f"{key!r} has half of a surrogate pair: {value!r}")
    return Question(
        row.id if columns.id is None else required[columns.id],
        asked,
        tuple(answers),
        "" if columns.level is None else optional[columns.level],
        metadata={key: optional[key] for key in metadata},
    )


def _text(value: Any) -> Any:
    """Convert a finite number to text, without a final ``.0``; return any other value unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    return repr(value).removesuffix(".0")
