"""JsonlTask: questions from JSON Lines files, every line checked; answers by exact match or judge, reports by expert.

    {"question": "What is the capital of France?", "answer": "Paris"}
    {"question": "Who wrote it?", "answer": ["Mark Twain", "Samuel Clemens"], "id": "q7", "level": "hard"}

``answer`` is the accepted answer, or a list of accepted answers with the canonical one first. ``id``, ``level`` and the
fields of ``table_by`` are optional. All values but the question may be numbers; they are converted to text. The
question may be a list of chat messages, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.tasks.json_lines import read_json_lines
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tasks.rows import Columns, Row, RowsTask, questions_of
from mgrpo_lightning.tools.sets import ToolSet

LAYOUT = 'write {"question": "...", "answer": "..."} on every line.'
COLUMNS = Columns(id="id", level="level")


class JsonlTask(RowsTask):
    """Questions from JSON Lines files, scored by exact match (without case, space, trailing punctuation) or a judge.

    Args:
        path: File of the training questions.
        validation_path: File of the validation questions; None leaves that split empty.
        test_path: File of the test questions; None leaves that split empty.
        tools: Dotted paths of functions, or sets of tools; roles call them by their bare names.
        judge: Judge of answers that do not match exactly; None: such answers are wrong.
        expert: Judge of sub-agents' reports; None: their expert reward is 0.
        table_by: Extra fields of each line by which result tables are split, in addition to the level.

    Raises:
        DataError: A file is missing, empty or malformed; the message names file, line and column.
        ConfigurationError: A tool does not exist, or two tools have the same name.
    """

    def __init__(
        self,
        path: str,
        validation_path: str | None = None,
        test_path: str | None = None,
        tools: Sequence[str | ToolSet] = (),
        judge: Judge | None = None,
        expert: Judge | None = None,
        table_by: Sequence[str] = (),
    ) -> None:
        paths: dict[Split, str | None] = {"train": path, "validation": validation_path, "test": test_path}
        questions = {split: read_questions(Path(file), table_by) for split, file in paths.items() if file is not None}
        super().__init__(questions, tools, judge, expert, table_by)


def read_questions(path: Path, metadata: Sequence[str] = ()) -> list[Question]:
    """Read the questions of a JSON Lines file, in file order; blank lines are skipped.

    Args:
        path: A UTF-8 file.
        metadata: Extra fields to keep as text; a missing field becomes an empty text.

    Raises:
        DataError: The file is missing, holds no question, or has a malformed line.
    """
    questions = questions_of(_rows(path), COLUMNS, metadata)
    if not questions:
        raise DataError(f"{path} has no questions.", hint=LAYOUT)
    return questions


def _rows(path: Path) -> Iterator[Row]:
    for line, record in read_json_lines(path, LAYOUT, what="task file"):
        number = f"line {line.number}"
        yield Row({"id": number, **record}, number, line.bad)
