"""GAIA: assistant questions of levels 1 to 3, some with a file; GAIA's strict rule; predictions for its leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import override

from mgrpo_lightning.errors import ScoringError
from mgrpo_lightning.protocol.tree import render
from mgrpo_lightning.ranges import Range, ranged
from mgrpo_lightning.records.question import UNKNOWN, Question
from mgrpo_lightning.records.trajectory import Rollout
from mgrpo_lightning.tasks.answer_rules import gaia_rule
from mgrpo_lightning.tasks.base import json_lines
from mgrpo_lightning.tasks.benchmarks.attachments import attachment_tool
from mgrpo_lightning.tasks.benchmarks.base import Benchmark, inside
from mgrpo_lightning.tasks.benchmarks.dataset_files import DatasetRow, Source, files_of, located, read_rows, text_of
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tools.sets import ToolSet

SOURCE = Source(
    "GAIA",
    "gaia-benchmark/GAIA on the Hugging Face hub",
    "gated: accept its terms there; do not share its rows",
    [["task_id"], ["Question"], ["Level"]],
)


@ranged("task")
class Gaia(Benchmark):
    """GAIA in its Parquet layout (since October 2025) or its earlier JSON Lines layout.

    If a question has a file, its text gives the file's name and path. The tool ``attachment`` reads text files. Your
    own tools, or an MCP server on the same machine, can read the others.

    Args:
        path: Folder that holds ``2023/``, one of its metadata files, or the name of the dataset on the hub.
        part: Split to ask.
        levels: Question levels to keep.
        text_only: Keep only questions without a file, as most papers do (103 of the validation split).
        judge: Judge of answers that GAIA's rule does not match; None: such answers are wrong.
        tools: See ``Benchmark``.

    Raises:
        DataError: The benchmark is not there, or has an unknown layout.
    """

    def __init__(
        self,
        path: str,
        part: Literal["validation", "test"] = "validation",
        levels: Sequence[Annotated[int, Range(1, 3)]] = (1, 2, 3),
        text_only: bool = False,
        judge: Judge | None = None,
        tools: Sequence[str | ToolSet] = (),
    ) -> None:
        patterns = [f"2023/{part}/metadata.parquet", f"2023/{part}/metadata.jsonl"]
        files = files_of(located(path, SOURCE), patterns, SOURCE)
        kept = [row for row in read_rows(files, SOURCE) if text_of(row, "Level") in map(str, levels)]
        rows = [row for row in kept if not (text_only and _file(row))]
        attachments = {name: inside(files[0].parent, name) for row in rows if (name := _file(row))}
        super().__init__([_question(row, attachments) for row in rows], judge=judge, tools=tools)
        self._tools.setdefault("attachment", attachment_tool(attachments))  # a tool of the user with this name wins

    @override
    def rule(self, question: Question, answer: str) -> float:
        if not question.known:
            raise ScoringError(f"only GAIA's leaderboard knows the answer of {question.id}.")
        return max(gaia_rule(answer, gold) for gold in question.answers)

    @override
    def predictions(self, played: Sequence[tuple[Question, Rollout]]) -> tuple[str, str]:
        """Format predictions for GAIA's leaderboard; a missing answer becomes an empty text."""
        return ".jsonl", json_lines(
            {"task_id": one.id, "model_answer": rollout.main.answer or "", "reasoning_trace": render(rollout)}
            for one, rollout in played
        )


def _question(row: DatasetRow, attachments: Mapping[str, Path]) -> Question:
    file = _file(row)
    note = f"\n\nThe file {file} belongs to this question. Its path is {attachments[file]}" if file else ""
    return Question(
        id=text_of(row, "task_id"),
        text=text_of(row, "Question") + note,
        answers=(text_of(row, "Final answer", default=UNKNOWN),),
        level=f"level {text_of(row, 'Level')}",
        metadata={"file": file, "path": str(attachments[file])} if file else {},
    )


def _file(row: DatasetRow) -> str:
    return text_of(row, "file_name", default="")
