"""GAIA: general assistant questions of three levels, some with a file; scored by a rule without tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from typing_extensions import override

from mgrpo_lightning.agents.tree import render
from mgrpo_lightning.errors import ScoringError, ToolError
from mgrpo_lightning.tasks.base import Question
from mgrpo_lightning.tasks.benchmarks.base import Benchmark, inside
from mgrpo_lightning.tasks.benchmarks.rows import Row, Source, first_of, located, read_rows, text_of
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tasks.scoring import gaia_rule
from mgrpo_lightning.tools.base import Tool, function_tool
from mgrpo_lightning.tools.sets import ToolSet
from mgrpo_lightning.trajectory import Rollout

SOURCE = Source(
    "GAIA",
    "gaia-benchmark/GAIA on the Hugging Face hub",
    "gated: accept its terms there; its rows are not to be shared",
)
UNKNOWN = "?"
"""The gold answer of the test split, which only the leaderboard knows."""


class Gaia(Benchmark):
    """GAIA in its Parquet layout (since October 2025) or the JSON lines before it.

    Args:
        path: Folder that holds ``2023/``, one of its metadata files, or the name of the dataset on the hub.
        part: Split to ask.
        levels: Levels to keep.
        text_only: Keep the questions without a file alone, as most papers do (103 of the validation split).
        judge: Decides about answers that GAIA's rule does not match; None: they are wrong.
        tools: See ``Benchmark``.

    Raises:
        DataError: The benchmark is not there, or not in one of its layouts.
    """

    def __init__(
        self,
        path: str,
        part: Literal["validation", "test"] = "validation",
        levels: Sequence[int] = (1, 2, 3),
        text_only: bool = False,
        judge: Judge | None = None,
        tools: Sequence[str | ToolSet] = (),
    ) -> None:
        patterns = [f"2023/{part}/metadata.parquet", f"2023/{part}/metadata.jsonl"]
        file = first_of(located(path, SOURCE), patterns, SOURCE)
        kept = [row for row in read_rows(file) if text_of(row, "Level") in map(str, levels)]
        rows = [row for row in kept if not (text_only and _file(row))]
        self._files = {name: inside(file.parent, name) for row in rows if (name := _file(row))}
        super().__init__([_question(row) for row in rows], judge=judge, tools=tools)
        self._tools.setdefault("attachment", attachment_tool(self._files))

    @override
    def rule(self, question: Question, answer: str) -> float:
        if question.answers == (UNKNOWN,):
            raise ScoringError(f"the answer of {question.id} is known to GAIA's leaderboard only.")
        return max(gaia_rule(answer, gold) for gold in question.answers)

    @override
    def prediction(self, question: Question, rollout: Rollout) -> dict[str, object]:
        """As GAIA's leaderboard takes it; an answer that is missing is an empty one."""
        answer = rollout.main.answer or ""
        return {"task_id": question.id, "model_answer": answer, "reasoning_trace": render(rollout)}


def _question(row: Row) -> Question:
    file = _file(row)
    note = f"\n\nThe file {file} belongs to this question." if file else ""
    return Question(
        id=text_of(row, "task_id"),
        text=text_of(row, "Question") + note,
        answers=(text_of(row, "Final answer", default=UNKNOWN),),
        level=f"level {text_of(row, 'Level')}",
        metadata={"file": file} if file else {},
    )


def _file(row: Row) -> str:
    return text_of(row, "file_name", default="")


LONGEST = 2**20
"""Bytes of an attachment that is shown as text."""


def attachment_tool(files: Mapping[str, Path]) -> Tool:
    """The tool ``attachment(name)``: a question's file as text, if it is one.

    Args:
        files: By name.
    """

    def attachment(name: str) -> str:
        """Read the file that belongs to the question."""
        path = files.get(name.strip())
        if path is None:
            raise ToolError(f"there is no file {name!r}.", hint="give the name that the question names.")
        try:
            with open(path, "rb") as file:
                return file.read(LONGEST).decode()
        except UnicodeDecodeError as error:
            raise ToolError(f"{name} is no text.", hint="a tool for its kind has to read it.") from error

    return function_tool(attachment)
