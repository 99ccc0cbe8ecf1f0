"""BrowseComp: questions whose short answers are hard to find; published encrypted, ``encrypted.py`` decrypts them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.benchmarks.base import Benchmark
from mgrpo_lightning.tasks.benchmarks.dataset_files import DatasetRow, Source, files_of, located, read_rows, text_of
from mgrpo_lightning.tasks.benchmarks.encrypted import decrypted
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tools.sets import ToolSet

SOURCE = Source(
    "BrowseComp",
    # The repository does not contain the file; its evaluation code downloads it from this URL.
    "https://openaipublic.blob.core.windows.net/simple-evals/browse_comp_test_set.csv, the url of openai/simple-evals",
    "MIT; never publish its plain text",
    [["problem"], ["answer"], ["canary"]],
)


class BrowseComp(Benchmark):
    """BrowseComp; scored by exact match or a judge.

    Args:
        path: The CSV file, or its folder.
        judge: Judge of answers that do not match exactly; None: such answers are wrong.
        tools: See ``Benchmark``.

    Raises:
        DataError: The benchmark is not there, or a row cannot be decrypted with its own canary.
    """

    def __init__(self, path: str, judge: Judge | None = None, tools: Sequence[str | ToolSet] = ()) -> None:
        rows = read_rows(files_of(located(path, SOURCE), ["browse_comp*.csv"], SOURCE), SOURCE)
        super().__init__([_question(number, row) for number, row in enumerate(rows)], judge=judge, tools=tools)


def _question(number: int, row: DatasetRow) -> Question:
    key = sha256(text_of(row, "canary").encode()).digest()
    problem, answer = (decrypted(text_of(row, name), key) for name in ("problem", "answer"))
    topic = text_of(row, "problem_topic", default="")
    # The key "encrypted" keeps the decrypted text out of logs and exports.
    return Question(f"row {number}", problem, (answer,), level=topic, metadata={"encrypted": "yes"})
