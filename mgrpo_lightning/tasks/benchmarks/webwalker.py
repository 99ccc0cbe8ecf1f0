"""WebWalkerQA: questions that an agent answers by browsing one web site; a judge scores the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.benchmarks.base import Benchmark
from mgrpo_lightning.tasks.benchmarks.dataset_files import DatasetRow, Source, files_of, located, read_rows, text_of
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tools.sets import ToolSet

SOURCE = Source(
    "WebWalkerQA",
    "callanwu/WebWalkerQA on the Hugging Face hub",
    "Apache-2.0",
    [["question", "Question"], ["answer", "Answer"], ["root_url", "Root_Url"]],
)


class WebWalkerQA(Benchmark):
    """WebWalkerQA, with column names in lower or upper case.

    Args:
        path: A Parquet, JSON or JSON Lines file, its folder, or the name of the dataset on the hub. If there are
            several splits, ``main`` is used.
        judge: Judge of the answers. It is required, because the accepted answers are sentences.
        languages: Languages to keep, such as ``en`` and ``zh``; None keeps all.
        tools: See ``Benchmark``.

    Raises:
        DataError: The benchmark is not there, or a row lacks its question, answer or site.
    """

    table_by = ("language",)

    def __init__(
        self, path: str, judge: Judge, languages: Sequence[str] | None = None, tools: Sequence[str | ToolSet] = ()
    ) -> None:
        patterns = [f"**/{name}.{end}" for end in ("parquet", "jsonl", "json") for name in ("main*", "*")]
        rows = read_rows(files_of(located(path, SOURCE), patterns, SOURCE), SOURCE)
        questions = [_question(number, row) for number, row in enumerate(rows)]
        kept = [one for one in questions if languages is None or one.metadata["language"] in languages]
        super().__init__(kept, judge=judge, tools=tools)


def _question(number: int, row: DatasetRow) -> Question:
    # Some copies nest the metadata in a column `info`; others have it in the row itself.
    info = next((row[name] for name in ("info", "Info") if isinstance(row.get(name), Mapping)), row)
    kind = text_of(info, "type", "Type", default="")
    difficulty = text_of(info, "difficulty_level", "Difficulty_Level", default="")
    site = text_of(row, "root_url", "Root_Url")
    return Question(
        id=f"row {number}",
        text=f"{text_of(row, 'question', 'Question')}\n\nStart at {site}",
        answers=(text_of(row, "answer", "Answer"),),
        level=" ".join(filter(None, (kind, difficulty))),
        metadata={"root_url": site, "language": text_of(info, "lang", "Lang", default="")},
    )
