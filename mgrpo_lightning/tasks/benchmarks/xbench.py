"""xbench-DeepSearch: Chinese search questions, published sealed; opened in memory, and never into logs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from typing_extensions import override

from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.benchmarks.base import Benchmark
from mgrpo_lightning.tasks.benchmarks.rows import Row, Source, files_of, located, read_rows, text_of
from mgrpo_lightning.tasks.benchmarks.sealed import unsealed
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tasks.scoring import exact_match
from mgrpo_lightning.tools.sets import ToolSet

SOURCE = Source(
    "xbench-DeepSearch",
    "xbench-ai/xbench-evals on GitHub",
    "MIT; its plain text is never to go online",
    [["id"], ["prompt"], ["answer"], ["canary"]],
)
_FINAL = re.compile("最终答案[:\uff1a]")
"""What the official prompt has before an answer; its own parser knows the ASCII colon only."""


class XBench(Benchmark):
    """xbench-DeepSearch.

    Args:
        path: ``DeepSearch-2505.csv`` or ``-2510.csv``, or the folder of one of them alone; the oldest revisions of the
            repository call it ``DeepSearch.csv``.
        judge: Decides about answers that are not word for word the accepted one; None: they are wrong.
        tools: See ``Benchmark``.

    Raises:
        DataError: The benchmark is not there, several editions are, or a row does not open with its own canary.
    """

    def __init__(self, path: str, judge: Judge | None = None, tools: Sequence[str | ToolSet] = ()) -> None:
        files = files_of(located(path, SOURCE), ["DeepSearch*.csv", "data/DeepSearch*.csv"], SOURCE)
        super().__init__([_question(row) for row in read_rows(files, SOURCE)], judge=judge, tools=tools)

    @override
    def rule(self, question: Question, answer: str) -> float:
        return exact_match(_FINAL.split(answer)[-1], question.answers)


def _question(row: Row) -> Question:
    key = text_of(row, "canary").encode()
    prompt, answer = (unsealed(text_of(row, name), key) for name in ("prompt", "answer"))
    return Question(text_of(row, "id"), prompt, (answer,), metadata={"sealed": "yes"})
