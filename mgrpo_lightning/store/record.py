"""Record: one message between roles (delegation, return, outcome, frontier, member), its hash and its Arrow columns.

A record is identified by its key and the hash of its content. The same key with the same hash is a repetition, for
instance after a restart. The same key with another hash replaces the earlier record. Records refer to each other by
hash: a return names the hash of the delegation that it answers. So the answer to an old call can never be taken for the
answer to its replacement.
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

Kind = Literal["members", "delegations", "returns", "outcomes", "frontiers"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STAGES = ("train", "validate", "predict")


class Closed(NamedTuple):
    """One call that counts in a closed step."""

    query: int
    rollout: int
    invocation: int
    hash: str
    """Hash of its delegation."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message from a role to the others; fields that do not apply are None."""

    kind: Kind
    """Kind of record. ``members``: a role starts, ends or fails. ``delegations`` and ``returns``: a call and its
    report. ``outcomes``: the score of a rollout. ``frontiers``: a round, a batch or a step is over."""
    stage: str
    """train, validate or predict."""
    key: Key
    """The trajectory that it is about; -1 in fields without a meaning, as in a frontier."""
    role: str
    """Of a delegation: the called role. Otherwise: the role that published the record."""
    event: str | None = None
    """Of members: begin, settings, save (a checkpoint), end, stop, interrupt (by a signal), fail. Of frontiers: round
    (of a batch), play (batch is over), step (is closed)."""
    of: str | None = None
    """Hash of the record that this one answers or belongs to: a return's delegation, a sub-call's own call."""
    parent: int | None = None
    """Of delegations: invocation index of the caller."""
    text: str | None = None
    """Subtask, report, error message, or main's answer."""
    trajectory: str | None = None
    """Of returns: hash of the trajectory behind the report; the trajectory itself stays with its role."""
    version: int | None = None
    """Number of updates of the policy. Of members: step at which the role would resume."""
    round: int | None = None
    """Round number in the ``rounds`` schedule."""
    failed: bool | None = None
    """Of returns: there is no report. Of outcomes: the rollout could not be scored."""
    valid: bool | None = None
    """Of outcomes: the format was valid."""
    correct: float | None = None
    """Of outcomes: correctness in [0, 1]."""
    seconds: float | None = None
    """Duration in seconds; not a part of the hash."""
    ranks: int | None = None
    """Of members: number of ranks of the role."""
    calls: tuple[Closed, ...] | None = None
    """Of the frontier of a step: every call that counts."""
    hash: str = field(init=False, compare=False, repr=False)
    """BLAKE2b hash of the content, 128 bits in hex."""

    @property
    def place(self) -> tuple[str, str, Key, str, str | None, int | None]:
        """What the record is about: of two records with one place, the later one counts."""
        event, turn = (self.event, self.round) if self.kind == "frontiers" else (None, None)
        return (self.kind, self.stage, self.key, self.role, event, turn)

    def __post_init__(self) -> None:
        # A text may contain lone surrogates, which plain UTF-8 rejects.
        digest = blake2b(_encode(_content(self)).encode("utf-8", "surrogatepass"), digest_size=16)
        # The dataclass is frozen, so plain assignment would raise.
        object.__setattr__(self, "hash", digest.hexdigest())


# Without `seconds`: a repeated call takes another time but says the same.
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
"""Columns of a segment; each row is a record."""


def to_batch(numbered: Mapping[int, Record]) -> pa.RecordBatch:
    """Convert records to Arrow columns.

    Args:
        numbered: Records by sequence number.
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
    """Convert one row back to a record, and check its hash.

    Args:
        row: Row of a segment's table.

    Raises:
        ValueError: The row is not a record, or its hash does not match its content.
    """
    if row["kind"] not in KINDS or row["stage"] not in STAGES:
        raise ValueError(f"kind {row['kind']!r} and stage {row['stage']!r} do not exist")
    values = {name: row[name] for name in _PLAIN}
    if values["calls"] is not None:
        values["calls"] = tuple(Closed(**call) for call in values["calls"])
    record = Record(key=Key(*(row[name] for name in Key._fields)), **values)
    if record.hash != row["hash"]:
        raise ValueError(f"the content of {record.place} has hash {record.hash}, not {row['hash']}")
    return record
