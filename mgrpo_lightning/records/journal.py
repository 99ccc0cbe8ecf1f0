"""The journal: every played group as columnar Parquet, one file a step, one row a trajectory.

A notebook reads it with any Parquet reader; ``read_groups`` gives the groups back exactly, ids and float32
log-probabilities bit for bit, so that an update can be recomputed from it. Files: ``step-000012.parquet`` (training)
and ``validation-000012.parquet``. A phase that is played in parts has a file for each; those behind the first have the
index of their first query in the name, ``validation-000012-000064.parquet``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.persistence.atomic import atomic_path
from mgrpo_lightning.persistence.tables import read_metadata, read_table
from mgrpo_lightning.records.question import Evidence, Question
from mgrpo_lightning.records.trajectory import Call, Group, Key, Message, Rollout, Score, Span, Trajectory

VERSION = "1"
"""Of the schema; stands in each file's metadata as ``mgrpo_journal``."""

PREFIXES = {"train": "step", "validate": "validation", "predict": "prediction"}
"""Of file names, by stage."""

_PART = re.compile(r"[a-z]+-\d{6}-(\d{6})")
_STEP = re.compile(r"step-(\d{6})(?:-\d{6})?")

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
"""One row a trajectory; score, advantage and coefficient are null where none was given. Call arguments are JSON."""

SCORED = "score_total"
SCORES = tuple(name for name in SCHEMA.names if name.startswith("score_"))
OPTIONAL = ("parent", "answer", SCORED, "advantage", "coefficient")
"""Columns that may be null; the other scores are where the total is."""


class Extra(NamedTuple):
    """What the update made of a trajectory."""

    advantage: float
    coefficient: float
    """Total weight in its role's batch."""


def write_groups(
    folder: str | Path,
    step: int,
    groups: Sequence[Group],
    stage: Literal["train", "validate", "predict"] = "train",
    extras: Mapping[Key, Extra] | None = None,
    *,
    identity: Mapping[str, Mapping[str, Any]] | None = None,
    last: bool = False,
) -> Path:
    """Write the groups of one step, atomically, over any older file of it.

    Older files with parts of the same queries go too: a step that is played again may be divided among fewer ranks.
    Behind the last groups of a step, those of any other queries do: fewer questions may be asked than before.

    Args:
        folder: The journal; made if missing.
        step: Names the file.
        groups: In the order of their queries, at least one, each with at least one rollout.
        stage: What was played for.
        extras: What is known of some or all trajectories beyond the groups.
        identity: What the policies belong to that played them, by role.
        last: Whether no rank has later queries.

    Returns:
        Path of the file.

    Raises:
        MgrpoError: The disk is full; what stood there before is untouched.
    """
    rows = [
        _row(group.question, rollout, trajectory, extras or {})
        for group in groups
        for rollout in group.rollouts
        for trajectory in rollout.trajectories()
    ]
    about = {"mgrpo_journal": VERSION, "stage": stage}
    if identity is not None:
        about["identity"] = json.dumps(identity, ensure_ascii=False)
    schema = SCHEMA.with_metadata(about)
    first, end = (group.rollouts[0].main.key.query for group in (groups[0], groups[-1]))
    name = f"{PREFIXES[stage]}-{step:06d}"
    path = Path(folder) / (f"{name}-{first:06d}.parquet" if first else f"{name}.parquet")
    with atomic_path(path) as temporary:
        pq.write_table(
            pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd", write_page_checksum=True
        )
    for other in Path(folder).glob(f"{name}-*.parquet"):
        if (match := _PART.fullmatch(other.stem)) and first < int(match[1]) and (last or int(match[1]) <= end):
            other.unlink(missing_ok=True)
    return path


def training_files(folder: Path) -> dict[int, list[Path]]:
    """The files of a journal's training steps, by step: one for each rank that played it.

    Args:
        folder: The journal.
    """
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob(f"{PREFIXES['train']}-*.parquet"), key=lambda path: path.stem):
        if match := _STEP.fullmatch(path.stem):
            found.setdefault(int(match[1]), []).append(path)
    return found


def identity_of_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """What the policies belong to that played a file's groups, by role; empty where it does not say.

    Args:
        path: One file of the journal.

    Raises:
        DataError: The file is missing or damaged.
    """
    identity = json.loads(read_metadata(Path(path)).get(b"identity", b"{}"))
    assert isinstance(identity, dict)
    return identity


def read_groups(path: str | Path) -> list[Group]:
    """Read back what ``write_groups`` wrote.

    Args:
        path: One file of the journal.

    Raises:
        DataError: The file is missing, damaged, or of another version.
    """
    table = read_columns(Path(path))
    try:
        return _groups(row for batch in table.to_batches() for row in batch.to_pylist(maps_as_pydicts="strict"))
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} has rows that make no rollouts: {type(error).__name__} ({error}).",
            hint="read it with the package that wrote it.",
        ) from error


def read_columns(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of a file of the journal.

    Args:
        path: One file of the journal.
        columns: Their names; None: all.

    Raises:
        DataError: The file is missing, damaged, or of another version; a column is missing, or lacks values.
    """

    def check(metadata: Mapping[bytes, bytes]) -> None:
        version = metadata.get(b"mgrpo_journal", b"none").decode(errors="replace")
        if version != VERSION:
            raise DataError(
                f"{path} has journal version {version}; this package reads version {VERSION}.",
                hint="read it with the package that wrote it.",
            )

    table = read_table(path, SCHEMA, columns, check=check)
    allowed = {name: table[SCORED].null_count for name in SCORES if SCORED in table.column_names}
    for name in table.column_names:
        if name not in OPTIONAL and table[name].null_count != allowed.get(name, 0):
            raise DataError(f"{path} lacks values in its column {name}.", hint="it is none of this package.")
    return table


def _groups(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    groups: list[Group] = []
    for row in rows:
        if row["invocation"] == 0:
            if not groups or groups[-1].rollouts[-1].main.key.query != row["query"]:
                groups.append(Group(_question(row), []))
            groups[-1].rollouts.append(Rollout(_trajectory(row)))
        else:
            groups[-1].rollouts[-1].subs.append(_trajectory(row))
        if row[SCORED] is not None:
            score = Score(**{name.removeprefix("score_"): row[name] for name in SCORES})
            groups[-1].rollouts[-1].scores[row["invocation"]] = score
    return groups


def _row(question: Question, rollout: Rollout, t: Trajectory, extras: Mapping[Key, Extra]) -> dict[str, Any]:
    score, extra = rollout.scores.get(t.key.invocation), extras.get(t.key)
    return {
        **t.key._asdict(),
        "parent": t.parent,
        "role": t.role,
        "question_id": question.id,
        "question": question.text,
        "level": question.level,
        "answers": question.answers,
        "evidence": [_fields(evidence) for evidence in question.evidence],
        "metadata": question.metadata,
        "task": t.task,
        "answer": t.answer,
        "valid": t.valid,
        "violations": t.violations,
        **({f"score_{name}": value for name, value in _fields(score).items()} if score else {}),
        **(extra._asdict() if extra else {}),
        "temperature": t.temperature,
        "num_tokens": t.num_tokens,
        "num_actions": t.num_actions,
        "spans": [_fields(span) for span in t.spans],
        "messages": [_fields(message) for message in t.messages],
        "calls": [_fields(call) | {"arguments": json.dumps(call.arguments, ensure_ascii=False)} for call in t.calls],
    }


def _fields(record: Span | Message | Call | Evidence | Score) -> dict[str, Any]:
    # dataclasses.asdict copies every token id.
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _question(row: Mapping[str, Any]) -> Question:
    evidence = tuple(Evidence(**item) for item in row["evidence"])
    return Question(
        row["question_id"], row["question"], tuple(row["answers"]), row["level"], evidence, dict(row["metadata"])
    )


def _trajectory(row: Mapping[str, Any]) -> Trajectory:
    return Trajectory(
        row["role"],
        Key(*(row[name] for name in Key._fields)),
        row["task"],
        row["temperature"],
        [Span(**span | {"ids": tuple(span["ids"]), "logprobs": tuple(span["logprobs"])}) for span in row["spans"]],
        [Message(**message) for message in row["messages"]],
        [Call(**call | {"arguments": json.loads(call["arguments"])}) for call in row["calls"]],
        row["answer"],
        row["violations"],
        row["parent"],
    )
