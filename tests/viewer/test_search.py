"""A search in all texts of a run, as the server does it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mgrpo_lightning.records.journal import write_groups
from mgrpo_lightning.viewer.search import search
from mgrpo_lightning.viewer.site import Site
from mgrpo_lightning.viewer.sources import Source
from tests.viewer.runs import make_group, received


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("which PEAK", {(0, 0), (0, 1), (1, 0), (1, 1)}),  # the question
        ("\u00dcBERALL", {(1, 1)}),  # a task
        ("at last", {(1, 0)}),  # an answer
        ("thought aloud", {(0, 1)}),  # a message
        ("secret word", {(0, 0)}),  # arguments of a call
        ("404", {(1, 1)}),  # a result
        ("no such text.*", set()),
    ],
)
def test_a_search_looks_into_every_text(tmp_path: Path, text: str, places: set[tuple[int, int]]) -> None:
    groups = [make_group(4, query, (0.0, 1.0)) for query in range(2)]
    main = {(group.rollouts[k].main.key[1:3]): group.rollouts[k].main for group in groups for k in range(2)}
    main[1, 1].task = "fragt \u00fcberall"
    main[1, 0].answer = "At last!"
    main[0, 1].messages[2] = replace(main[0, 1].messages[2], content="it Thought aloud")
    main[0, 0].calls[0] = replace(main[0, 0].calls[0], arguments={"query": "Secret word"})
    sub = groups[1].rollouts[1].subs[0]
    sub.calls[0] = replace(sub.calls[0], result="status 404")
    path = write_groups(tmp_path / "journal", 4, groups)
    (damaged := tmp_path / "journal" / "step-000005.parquet").write_bytes(b"PAR1 nothing")
    assert search([path, damaged], text) == places
    found = received(Site([Source(tmp_path)], live=True).search(3, text))["found"]
    assert found == [[0, "step-000004", *place] for place in sorted(places)]
