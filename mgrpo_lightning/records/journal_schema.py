"""The columns of a journal file, their types, and which of them may be null."""

from __future__ import annotations

import pyarrow as pa

from mgrpo_lightning.records.trajectory import Key

VERSION = "1"
"""Version of the schema, in each file's metadata as ``mgrpo_journal``."""
SEGMENTED = "2"
"""Version of a file with a trajectory of several segments: it has the column ``SEGMENTS`` too."""
REWARDED = "3"
"""Version of a file with values of the user's reward functions: it has ``SEGMENTS`` and ``FUNCTIONS`` too."""

_EVIDENCE = pa.struct([(name, pa.string()) for name in ("url", "section", "value", "subject", "relation")])
_SPAN = pa.struct(
    [
        ("kind", pa.string()),
        ("ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("version", pa.int32()),
        ("truncated", pa.bool_()),
    ]
)
_CALL = pa.struct(
    [
        ("turn", pa.int32()),
        ("name", pa.string()),
        ("arguments", pa.string()),
        ("result", pa.string()),
        ("failed", pa.bool_()),
        ("invocation", pa.int32()),
        ("seconds", pa.float64()),
    ]
)
_COLUMNS: list[tuple[str, pa.DataType]] = [
    *((name, pa.int64()) for name in Key._fields),
    ("parent", pa.int64()),
    ("role", pa.string()),
    ("question_id", pa.string()),
    ("question", pa.string()),
    ("level", pa.string()),
    ("answers", pa.list_(pa.string())),
    ("evidence", pa.list_(_EVIDENCE)),
    ("metadata", pa.map_(pa.string(), pa.string())),
    ("task", pa.string()),
    ("answer", pa.string()),
    ("valid", pa.bool_()),
    ("violations", pa.list_(pa.string())),
    *((f"score_{name}", pa.float64()) for name in ("format", "correct", "correct_main", "expert", "total")),
    ("score_failed", pa.bool_()),
    ("advantage", pa.float64()),
    ("coefficient", pa.float64()),
    ("temperature", pa.float64()),
    ("num_tokens", pa.int64()),
    ("num_actions", pa.int64()),
    ("spans", pa.list_(_SPAN)),
    ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    ("calls", pa.list_(_CALL)),
]
SCHEMA = pa.schema(_COLUMNS)
"""One row per trajectory. Score, advantage and coefficient are null if missing. Call arguments are JSON."""

SEGMENTS = pa.field("segments", pa.list_(pa.int32()))
"""Number of spans of each segment. Without this column, all spans of a trajectory are one segment."""

FUNCTIONS = pa.field("score_functions", pa.map_(pa.string(), pa.float64()))
"""Values of the user's reward functions by name; a value is null if it is undecided. Without it there are none."""
SCHEMAS = {VERSION: SCHEMA, SEGMENTED: SCHEMA.append(SEGMENTS), REWARDED: SCHEMA.append(SEGMENTS).append(FUNCTIONS)}
"""All columns of a file, by its version."""

SCORED = "score_total"
SCORES = tuple(name for name in SCHEMAS[REWARDED].names if name.startswith("score_"))
OPTIONAL = ("parent", "answer", SCORED, "advantage", "coefficient")
"""Columns that may be null; the other score columns are null exactly where the total is."""
