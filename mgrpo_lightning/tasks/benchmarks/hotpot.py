"""HotpotQA and 2WikiMultihopQA, which share a layout: questions over two or more pages, with distractor pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.question import UNKNOWN, Question, Split
from mgrpo_lightning.records.trajectory import Rollout
from mgrpo_lightning.tasks.benchmarks.dataset_files import DatasetRow, Source, text_of
from mgrpo_lightning.tasks.benchmarks.multihop import Example, Hop, MultiHop
from mgrpo_lightning.tasks.benchmarks.paragraphs import Paragraph
from mgrpo_lightning.unicode import encodable

SOURCE = Source(
    "HotpotQA",
    "hotpotqa.github.io, or 2WikiMultihopQA from Alab-NII/2wikimultihop on GitHub",
    "CC BY-SA 4.0",
    [["_id", "id"], ["question"], ["context"]],
)
# Names in the authors' folders of both benchmarks; then in hotpotqa/hotpot_qa and two copies of 2WikiMultihopQA on the
# hub.
PATTERNS: Mapping[Split, Sequence[str]] = {
    "train": (
        *("hotpot_train_*.json", "train.json"),
        *("distractor/train-*.parquet", "data/train-*.parquet", "train.parquet"),
    ),
    "validation": (
        *("hotpot_dev_distractor_*.json", "dev.json"),
        *("distractor/validation-*.parquet", "data/validation-*.parquet", "dev.parquet"),
    ),
    "test": (
        *("hotpot_test_*.json", "test.json"),
        *("fullwiki/test-*.parquet", "data/test-*.parquet", "test.parquet"),
    ),
}


class HotpotQA(MultiHop):
    """HotpotQA or 2WikiMultihopQA; see ``MultiHop``."""

    source = SOURCE
    patterns = PATTERNS

    @override
    @staticmethod
    def example(row: DatasetRow) -> Example:
        name = text_of(row, "_id", "id")
        question = Question(
            id=name,
            text=text_of(row, "question"),
            answers=(text_of(row, "answer", default="") or UNKNOWN,),
            level=" ".join(filter(None, (text_of(row, "type", default=""), text_of(row, "level", default="")))),
        )
        paragraphs = [
            Paragraph(title, encodable(" ".join(sentence.strip() for sentence in sentences)))
            for title, sentences in _pairs(row, "context", "sentences", name)
        ]
        titles = dict.fromkeys(title for title, _ in _pairs(row, "supporting_facts", "sent_id", name))
        if unknown := titles.keys() - {paragraph.title for paragraph in paragraphs}:
            raise DataError(f"question {name} needs the pages {sorted(unknown)}, which its context lacks.", hint=_HINT)
        return Example(question, paragraphs, [Hop(title) for title in titles])

    @override
    def predictions(self, played: Sequence[tuple[Question, Rollout]]) -> tuple[str, str]:
        """Format predictions as one object for both official scripts, without supporting facts and evidence."""
        nothing: dict[str, list[str]] = {question.id: [] for question, _ in played}
        answers = {question.id: rollout.main.answer or "" for question, rollout in played}
        # HotpotQA's script ignores "evidence"; 2WikiMultihopQA's script fails without it.
        return ".json", json.dumps({"answer": answers, "sp": nothing, "evidence": nothing}, ensure_ascii=False) + "\n"


_HINT = "use the files of the distractor setting: their context holds the supporting pages."


def _pairs(row: DatasetRow, column: str, other: str, name: str) -> Sequence[tuple[str, Any]]:
    """Return (title, content) pairs of a column: a list of pairs (original files), columns (hub), or JSON of either."""
    value = row.get(column)
    try:
        value = json.loads(value) if isinstance(value, str) else value
        if isinstance(value, Mapping):
            value = list(zip(value["title"], value.get(other, value.get("content")), strict=True))
        return [(encodable(str(title)), found) for title, found in value or ()]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"question {name} has {column} = {str(value)[:80]!r}.", hint=_HINT) from error
