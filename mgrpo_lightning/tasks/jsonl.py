"""JsonlTask: questions from JSON Lines files, every line checked; answers by exact match or judge, reports by expert.

    {"question": "What is the capital of France?", "answer": "Paris"}
    {"question": "Who wrote it?", "answer": ["Mark Twain", "Samuel Clemens"], "id": "q7", "level": "hard"}

``answer`` is the accepted answer, or a list of accepted answers with the canonical one first. ``id``, ``level`` and the
fields of ``table_by`` are optional. All values but the question may be numbers; they are converted to text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.records.trajectory import Trajectory
from mgrpo_lightning.tasks.judge import Judge, judged_report
from mgrpo_lightning.tasks.judged import JudgedTask
from mgrpo_lightning.tools.sets import ToolSet
from mgrpo_lightning.unicode import encodable, visible

LAYOUT = 'write {"question": "...", "answer": "..."} on every line.'


class JsonlTask(JudgedTask):
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
        super().__init__(judge, tools)
        self.table_by = tuple(table_by)
        paths: dict[Split, str | None] = {"train": path, "validation": validation_path, "test": test_path}
        self._questions = {
            split: read_questions(Path(file), self.table_by) for split, file in paths.items() if file is not None
        }
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


def read_questions(path: Path, metadata: Sequence[str] = ()) -> list[Question]:
    """Read the questions of a JSON Lines file, in file order; blank lines are skipped.

    Args:
        path: A UTF-8 file.
        metadata: Extra fields to keep as text; a missing field becomes an empty text.

    Raises:
        DataError: The file is missing, holds no question, or has a malformed line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"cannot read the task file {path}: {error.strerror}.", hint="check the path.") from error
    questions: dict[str, Question] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            question = _question(line, path, number, metadata)
            if question.id in questions:
                raise _malformed(path, number, 1, f"an earlier line has the id {question.id!r} too")
            questions[question.id] = question
    if not questions:
        raise DataError(f"{path} has no questions.", hint=LAYOUT)
    return list(questions.values())


def _question(line: bytes, path: Path, number: int, metadata: Sequence[str]) -> Question:
    try:
        record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))  # Windows editors write a BOM
    except UnicodeDecodeError as error:
        raise _malformed(path, number, error.start + 1, f"byte {line[error.start]:#04x} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise _malformed(path, number, error.colno, error.msg) from error
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, or very deep nesting
        raise _malformed(path, number, 1, f"the line cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise _malformed(path, number, 1, f"the line is a {type(record).__name__}, not an object")
    answers = record.get("answer")
    answers = list(map(_text, answers if isinstance(answers, list) else [answers]))
    fields = {
        "question": record.get("question"),
        "id": _text(record.get("id", f"line {number}")),
        "level": _text(record.get("level", "")),
        **{key: _text(record.get(key, "")) for key in metadata},
    }
    for key, value in fields.items():
        if not isinstance(value, str) or (key in ("question", "id") and not value.strip()):
            raise _malformed(path, number, _column(line, key), f"{key!r} is {value!r}, not text")
    if not answers or not all(isinstance(answer, str) and visible(answer).strip() for answer in answers):
        problem = f"'answer' is {record.get('answer')!r}, not text, a number or a list of these"
        raise _malformed(path, number, _column(line, "answer"), problem)
    for key, value in (*fields.items(), *(("answer", answer) for answer in answers)):
        # JSON allows \ud800 alone, but such text cannot be encoded as UTF-8 and would fail much later.
        if encodable(value) != value:
            raise _malformed(path, number, _column(line, key), f"{key!r} has half of a surrogate pair: {value!r}")
    kept = {key: fields[key] for key in metadata}
    return Question(fields["id"], fields["question"], tuple(answers), fields["level"], metadata=kept)


def _text(value: Any) -> Any:
    """Convert a finite number to text, without a final ``.0``; return any other value unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    return repr(value).removesuffix(".0")


def _column(line: bytes, key: str) -> int:
    """Return the column of a key in a line, counted in characters from 1; 1 if the key is missing."""
    return max(line.decode().find(json.dumps(key)), 0) + 1


def _malformed(path: Path, line: int, column: int, problem: str) -> DataError:
    return DataError(f"{path}, line {line}, column {column}: {problem}.", hint=LAYOUT)
