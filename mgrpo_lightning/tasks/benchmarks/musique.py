"""MuSiQue: questions composed of two to four single-hop questions, with a known answer for each hop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import override

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.question import UNKNOWN, Question, Split
from mgrpo_lightning.records.trajectory import Rollout
from mgrpo_lightning.tasks.answer_rules import squad_f1
from mgrpo_lightning.tasks.base import json_lines
from mgrpo_lightning.tasks.benchmarks.dataset_files import DatasetRow, Source, text_of
from mgrpo_lightning.tasks.benchmarks.multihop import Example, Hop, MultiHop
from mgrpo_lightning.tasks.benchmarks.paragraphs import Paragraph

SOURCE = Source("MuSiQue", "StonyBrookNLP/musique on GitHub", "CC BY 4.0", [["id"], ["question"], ["paragraphs"]])
PATTERNS: Mapping[Split, Sequence[str]] = {
    "train": ("musique_ans_*_train.jsonl", "data/musique_ans_*_train.jsonl"),
    "validation": ("musique_ans_*_dev.jsonl", "data/musique_ans_*_dev.jsonl"),
    "test": ("musique_ans_*_test.jsonl", "data/musique_ans_*_test.jsonl"),
}


class MuSiQue(MultiHop):
    """MuSiQue-Answerable; see ``MultiHop``."""

    source = SOURCE
    patterns = PATTERNS

    @override
    @staticmethod
    def example(row: DatasetRow) -> Example:
        name = text_of(row, "id")
        try:
            paragraphs = {
                int(one["idx"]): Paragraph(text_of(one, "title"), text_of(one, "paragraph_text"))
                for one in row["paragraphs"]
            }
            steps = [
                Hop(paragraphs[int(step["paragraph_support_idx"])].title, text_of(step, "answer"))
                for step in row.get("question_decomposition") or ()
                if step.get("paragraph_support_idx") is not None
            ]
            aliases = [str(alias) for alias in row.get("answer_aliases") or ()]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"question {name} has no paragraphs or decomposition in MuSiQue's format ({error!r}).",
                hint="use musique_ans_v1.0_*.jsonl.",
            ) from error
        question = Question(
            id=name,
            text=text_of(row, "question"),
            # dict.fromkeys removes aliases that repeat the answer and keeps the answer first. Test rows have no answer.
            answers=tuple(dict.fromkeys([text_of(row, "answer", default="") or UNKNOWN, *aliases])),
            level=f"{len(steps)} hops" if steps else "",
        )
        return Example(question, list(paragraphs.values()), steps)

    @override
    def f1(self, answer: str | None, golds: Sequence[str]) -> float:
        return squad_f1(answer, golds)

    @override
    def predictions(self, played: Sequence[tuple[Question, Rollout]]) -> tuple[str, str]:
        """Format predictions for the official script: no supporting paragraphs, and every question is answerable."""
        return ".jsonl", json_lines(
            {
                "id": question.id,
                "predicted_answer": rollout.main.answer or "",
                "predicted_support_idxs": [],
                "predicted_answerable": True,
            }
            for question, rollout in played
        )
