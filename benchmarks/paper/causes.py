"""Count causes of wrong held-out answers before and after training: stopped early, wrong place, misread, no answer.

    python -m benchmarks.paper.causes RUN [RUN ...] [--record [NAME]]

Each wrong rollout counts once, under the first cause on its way that applies:

- ``no answer``: main said nothing legal;
- ``main stopped early``: fewer delegations than the question has hops, and every report so far was right;
- ``wrong place``: a searcher whose report was wrong opened no page of the gold path at the field that has the fact;
- ``misread``: it did open one, and reported something else;
- ``main's own``: all reports were right and main said something else.

The warm start of the quickstart demonstrates ``main stopped early`` and ``wrong place`` on purpose, the others never:
what becomes of these is learnt without ever having been shown wrongly.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.records import add_option, keep
from benchmarks.tables import markdown
from mgrpo_lightning.records.journal import read_groups
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Rollout

NAME = "paper/causes"
CAUSES = ("main stopped early", "wrong place", "misread", "main's own", "no answer")


def cause(question: Question, rollout: Rollout) -> str | None:
    """Why a scored rollout is wrong, None if it is right.

    Args:
        question: Its question, with the gold path.
        rollout: What was played.
    """
    if rollout.scores[0].correct:
        return None
    golds = {hop.value for hop in question.evidence}
    for sub in rollout.subs:
        if sub.answer not in golds:
            opened = {(c.arguments.get("url"), c.arguments.get("section")) for c in sub.calls if c.name == "visit"}
            gold = {(hop.url, hop.section.partition(": ")[2]) for hop in question.evidence}
            return "misread" if opened & gold else "wrong place"
    if rollout.main.answer is None:
        return "no answer"
    return "main stopped early" if len(rollout.subs) < len(question.evidence) else "main's own"


def count(journal: Path) -> Counter[str]:
    """Wrong rollouts of one validation, by cause; ``right`` counts the others.

    Args:
        journal: One file of a run's journal.
    """
    groups = read_groups(journal)
    return Counter(cause(group.question, rollout) or "right" for group in groups for rollout in group.rollouts)


def table(*results: Mapping[str, Any]) -> str:
    """Shares of all answers by cause, in Markdown.

    Args:
        results: Of ``main``.
    """
    counted = {moment: sum((Counter(r[moment]) for r in results), Counter[str]()) for moment in ("before", "after")}
    rows = [(name, *(f"{one[name] / one.total():.1%}" for one in counted.values())) for name in ("right", *CAUSES)]
    runs = sum(result["runs"] for result in results)
    return markdown((f"{runs} runs, {counted['before'].total()} answers", *counted), rows)


def main() -> None:
    """Print a table with a column before and after for all runs together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    add_option(parser, NAME)
    arguments = parser.parse_args()
    before, after = Counter[str](), Counter[str]()
    for run in arguments.runs:
        played = sorted((run / "journal").glob("validation-??????.parquet"))
        if len(played) < 2:
            parser.error(f"{run} has no validation before and after training")
        before += count(played[0])
        after += count(played[-1])
    result = {"runs": len(arguments.runs), "before": before, "after": after}
    print(table(result))
    keep(arguments.record, result, threads=1)


if __name__ == "__main__":
    main()
