"""The overview at the head of ``records/``: the types it names are in the files it names, and shapes are as it says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import mgrpo_lightning.records
from mgrpo_lightning.records.batch import TrainingRow
from mgrpo_lightning.records.trajectory import Key, Segment, Span, Trajectory

TEXT = mgrpo_lightning.records.__doc__ or ""


def test_every_named_type_is_defined_in_the_named_file() -> None:
    named = re.findall(r"^\d+\. ``(\w+)`` \(``(\w+)\.py``\)", TEXT, re.MULTILINE)
    assert len(named) == 10
    for name, file in named:
        module = importlib.import_module(f"mgrpo_lightning.records.{file}")
        assert getattr(module, name).__module__ == module.__name__
    diagram = TEXT.partition("How they nest::")[2]
    assert set(re.findall(r"[A-Z]\w+", diagram)) - {"Parquet"} == {name for name, _ in named}


def test_every_named_file_exists(root: Path) -> None:
    package = root / "mgrpo_lightning"
    for path in re.findall(r"``([\w/]+\.py)``", TEXT):
        assert (package / path).exists() or (package / "records" / path).exists(), path


def test_shapes_of_a_trajectory_and_of_its_row() -> None:
    spans = [Span("observation", (5, 6, 7)), Span("action", (8, 9), (-0.5, -1.0)), Span("observation", (4,))]
    trajectory = Trajectory("searcher", Key(0, 0, 0, 1), "subtask", segments=[Segment(spans)], parent=0)
    (segment,) = trajectory.segments
    assert len(segment.ids) == len(segment.action_mask) == len(segment.logprobs) == trajectory.num_tokens == 6
    (row,) = TrainingRow.of(trajectory, advantage=1.0, coefficient=0.5)
    assert (row.ids.shape, row.mask.shape, row.behaviour.shape) == ((6,), (6,), (2,))
