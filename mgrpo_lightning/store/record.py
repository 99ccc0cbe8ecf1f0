"""Record: one row of the store, and the hash of what it says.

A record is (key, hash of content). The same key with the same hash says the same thing once more, as after a restart;
with another hash it takes the place of what was said before. What a record is about it names by hash: a return names
the delegation that it answers. So what was made of an old call can never be taken for that of the one in its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Literal, NamedTuple, get_args

import pyarrow as pa

from mgrpo_lightning.records.trajectory import Key

Stream = Literal["members", "delegations", "returns", "outcomes", "frontiers"]
STREAMS: tuple[Stream, ...] = get_args(Stream)
STAGES = ("train", "validate", "predict")


class Closed(NamedTuple):
    """One call of a closed step."""

    query: int
    rollout: int
    invocation: int
    hash: str
    """Of its delegation."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one role tells the others; what does not apply is None."""

    stream: Stream
    """``members``: a role begins, ends or fails; ``delegations`` and ``returns``: a call and its report; ``outcomes``:
    how a rollout was scored; ``frontiers``: a round, a play or a step is over."""
    stage: str
    """What is played for: train, validate or predict."""
    key: Key
    """What it is about; -1 where a part has no meaning, as in a frontier."""
    role: str
    """Whom a delegation is for; otherwise whose record it is."""
    event: str | None = None
    """Of members: begin, settings, save (a checkpoint), end, stop,
    interrupt (by a signal), fail. Of frontiers: round (of a play), play (is over), step
    (is closed)."""
    of: str | None = None
    """Hash of the record that this one answers, or stands below: a return's delegation, a sub-call's own call."""
    parent: int | None = None
    """Of delegations: invocation index of the caller."""
    text: str | None = None
    """Subtask, report, error, or main's answer."""
    trajectory: str | None = None
    """Of returns: hash of the trajectory behind the report, which stays with its role."""
    version: int | None = None
    """Updates that the policy had had; of members: with which the role begins if it is started again."""
    round: int | None = None
    """Of the ``rounds`` schedule."""
    failed: bool | None = None
    """Of returns: there is no report; of outcomes: they could not be scored."""
    valid: bool | None = None
    """Of outcomes: the format was."""
    correct: float | None = None
    """Of outcomes, in [0, 1]."""
    seconds: float | None = None
    """How long it took; no part of the content."""
    ranks: int | None = None
    """Of members: how many processes the role has."""
    calls: tuple[Closed, ...] | None = None
    """Of the frontier of a step: every call that counts."""
    hash: str = field(init=False, compare=False, repr=False)
    """128 bits of the content, in hex."""

    @property
    def place(self) -> tuple[str, str, Key, str, str | None, int | None]:
        """What it says something about: of two records of one place the later one counts."""
        event, turn = (self.event, self.round) if self.stream == "frontiers" else (None, None)
        return (self.stream, self.stage, self.key, self.role, event, turn)

    def __post_init__(self) -> None:
        digest = blake2b(_encode(_content(self)).encode("utf-8", "surrogatepass"), digest_size=16)
        object.__setattr__(self, "hash", digest.hexdigest())


_content = attrgetter(*(field.name for field in fields(Record) if field.name not in ("seconds", "hash")))
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

_CALLS = pa.list_(pa.struct([(name, pa.string() if name == "hash" else pa.int64()) for name in Closed._fields]))
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("parent", "version", "round", "ranks"), pa.int64()),
    **dict.fromkeys(("failed", "valid"), pa.bool_()),
    **dict.fromkeys(("correct", "seconds"), pa.float64()),
    "calls": _CALLS,
}
_PLAIN = [field.name for field in fields(Record) if field.name not in ("key", "hash")]
SCHEMA = pa.schema(
    [
        ("sequence", pa.int64()),
        *((name, pa.int64()) for name in Key._fields),
        *((name, _TYPES.get(name, pa.string())) for name in _PLAIN),
        ("hash", pa.string()),
    ]
)
"""Columns of a segment: one row a record."""


def to_batch(numbered: Mapping[int, Record]) -> pa.RecordBatch:
    """Records as columns.

    Args:
        numbered: By sequence number.
    """
    records = list(numbered.values())
    columns: dict[str, list[Any]] = {"sequence": list(numbered)}
    for position, name in enumerate(Key._fields):
        columns[name] = [record.key[position] for record in records]
    for name in _PLAIN:
        columns[name] = [getattr(record, name) for record in records]
    columns["calls"] = [calls and [call._asdict() for call in calls] for calls in columns["calls"]]
    columns["hash"] = [record.hash for record in records]
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def from_row(row: dict[str, Any]) -> Record:
    """One row back as a record.

    Args:
        row: Of a segment's table.

    Raises:
        ValueError: It is no record, or its hash is not that of its content.
    """
    if row["stream"] not in STREAMS or row["stage"] not in STAGES:
        raise ValueError(f"stream {row['stream']!r} and stage {row['stage']!r} do not exist")
    values = {name: row[name] for name in _PLAIN}
    if values["calls"] is not None:
        values["calls"] = tuple(Closed(**call) for call in values["calls"])
    record = Record(key=Key(*(row[name] for name in Key._fields)), **values)
    if record.hash != row["hash"]:
        raise ValueError(f"the content of {record.place} has hash {record.hash}, not {row['hash']}")
    return record
