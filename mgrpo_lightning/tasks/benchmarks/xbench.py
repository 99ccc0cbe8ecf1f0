"""xbench-DeepSearch: Chinese search questions that are published encrypted; ``encrypted.py`` decrypts them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from typing_extensions import override

from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.answer_rules import exact_match
from mgrpo_lightning.tasks.benchmarks.base import Benchmark
from mgrpo_lightning.tasks.benchmarks.dataset_files import DatasetRow, Source, files_of, located, read_rows, text_of
from mgrpo_lightning.tasks.benchmarks.encrypted import decrypted
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tools.sets import ToolSet

SOURCE = Source(
    "xbench-DeepSearch",
    "xbench-ai/xbench-evals on GitHub",
    "MIT; never publish its plain text",
    [["id"], ["prompt"], ["answer"], ["canary"]],
)
_FINAL = re.compile("最终答案[:\uff1a]")
"""Text before an answer in the official prompt; the official parser accepts the ASCII colon only."""


class XBench(Benchmark):
    """xbench-DeepSearch; scored by exact match or a judge.

    Args:
        path: ``DeepSearch-2505.csv`` or ``DeepSearch-2510.csv``, or a folder that holds one of them. The oldest
            revisions of the repository call the file ``DeepSearch.csv``.
        judge: Judge of answers that do not match exactly; None: such answers are wrong.
        tools: See ``Benchmark``.

    Raises:
        DataError: The benchmark is missing, the folder holds several editions, or a row cannot be decrypted with its
            own canary.
    """

    def __init__(self, path: str, judge: Judge | None = None, tools: Sequence[str | ToolSet] = ()) -> None:
        files = files_of(located(path, SOURCE), ["DeepSearch*.csv", "data/DeepSearch*.csv"], SOURCE)
        super().__init__([_question(row) for row in read_rows(files, SOURCE)], judge=judge, tools=tools)

    @override
    def rule(self, question: Question, answer: str) -> float:
        return exact_match(_FINAL.split(answer)[-1], question.answers)


def _question(row: DatasetRow) -> Question:
    key = text_of(row, "canary").encode()
    prompt, answer = (decrypted(text_of(row, name), key) for name in ("prompt", "answer"))
    # The key "encrypted" keeps the decrypted text out of logs and exports.
    return Question(text_of(row, "id"), prompt, (answer,), metadata={"encrypted": "yes"})
