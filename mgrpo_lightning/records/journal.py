"""The journal: write and read played groups as Parquet files, a file for each step, a row for each trajectory.

Any Parquet reader can read it. ``read_groups`` restores the groups exactly, ids and float32 log-probabilities bit for
bit, so an update can be recomputed from it. File names: ``step-000012.parquet`` (training) and
``validation-000012.parquet``. If a step is played in parts, each part has its own file. The first part has the plain
name; the others append the index of their first query: ``validation-000012-000064.parquet``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.persistence.atomic import atomic_path
from mgrpo_lightning.persistence.parquet import read_metadata, read_table
from mgrpo_lightning.records.journal_schema import (
    FUNCTIONS,
    OPTIONAL,
    REWARDED,
    SCHEMAS,
    SCORED,
    SCORES,
    SEGMENTED,
    SEGMENTS,
    VERSION,
)
from mgrpo_lightning.records.question import Evidence, Question
from mgrpo_lightning.records.trajectory import Call, Group, Key, Message, Rollout, Score, Segment, Span, Trajectory

PREFIXES = {"train": "step", "validate": "validation", "predict": "prediction"}
"""First part of the file names, by stage."""

_PART = re.compile(r"[a-z]+-\d{6}-(\d{6})")
_STEP = re.compile(r"step-(\d{6})(?:-\d{6})?")


class Extra(NamedTuple):
    """Values that the update assigned to a trajectory."""

    advantage: float
    coefficient: float
    """Its share of the loss of its role's batch."""


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
    """Write the groups of one step atomically; an older file of the same name is replaced.

    Older files that contain the same queries are removed too, because a repeated step may run on fewer ranks. After the
    last groups of a step (``last``), files of all later queries are removed, because fewer questions may be asked than
    before.

    Args:
        folder: Folder of the journal; created if missing.
        step: Number in the file name.
        groups: The groups, ordered by query; at least one, each with at least one rollout.
        stage: train, validate or predict.
        extras: Advantage and coefficient of some or all trajectories.
        identity: Identity of the policies that played the groups, by role.
        last: Whether no rank has later queries.

    Returns:
        Path of the file.

    Raises:
        MgrpoError: The disk is full; an older file is unchanged.
    """
    rows = [
        _row(group.question, rollout, trajectory, extras or {})
        for group in groups
        for rollout in group.rollouts
        for trajectory in rollout.trajectories()
    ]
    # The lowest version that holds the rows, so that older packages read what they can.
    version = SEGMENTED if any(len(row[SEGMENTS.name]) > 1 for row in rows) else VERSION
    version = REWARDED if any(row.get(FUNCTIONS.name) for row in rows) else version
    about = {"mgrpo_journal": version, "stage": stage}
    if identity is not None:
        about["identity"] = json.dumps(identity, ensure_ascii=False)
    schema = SCHEMAS[version].with_metadata(about)
    first, end = (group.rollouts[0].main.key.query for group in (groups[0], groups[-1]))
    name = f"{PREFIXES[stage]}-{step:06d}"
    path = Path(folder) / (f"{name}-{first:06d}.parquet" if first else f"{name}.parquet")
    with atomic_path(path) as temporary:
        # Checksums per page, so that `read_table` notices a damaged file.
        pq.write_table(
            pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd", write_page_checksum=True
        )
    # Only after the new file is in place: a crash before leaves the older files complete.
    for other in Path(folder).glob(f"{name}-*.parquet"):
        if (match := _PART.fullmatch(other.stem)) and first < int(match[1]) and (last or int(match[1]) <= end):
            other.unlink(missing_ok=True)
    return path


def training_files(folder: Path) -> dict[int, list[Path]]:
    """Return the files of the training steps, by step; each rank that played a step wrote one.

    Args:
        folder: Folder of the journal.
    """
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob(f"{PREFIXES['train']}-*.parquet"), key=lambda path: path.stem):
        if match := _STEP.fullmatch(path.stem):
            found.setdefault(int(match[1]), []).append(path)
    return found


def identity_of_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """Return the identity of the policies that played a file's groups, by role; empty if the file has none.

    Args:
        path: A file of the journal.

    Raises:
        DataError: The file is missing or damaged.
    """
    identity = json.loads(read_metadata(Path(path)).get(b"identity", b"{}"))
    assert isinstance(identity, dict)
    return identity


def read_groups(path: str | Path) -> list[Group]:
    """Read back the groups that ``write_groups`` wrote.

    Args:
        path: A file of the journal.

    Raises:
        DataError: The file is missing, damaged, or of another version.
    """
    table = read_columns(Path(path))
    try:
        return _groups(row for batch in table.to_batches() for row in batch.to_pylist(maps_as_pydicts="strict"))
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} has rows that do not form rollouts: {type(error).__name__} ({error}).",
            hint="read it with the package that wrote it.",
        ) from error


def read_columns(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of a journal file.

    Args:
        path: A file of the journal.
        columns: Names of columns. Those that another version has and this file's has not are left out. None: all
            columns of the file's version.

    Raises:
        DataError: The file is missing, damaged or of another version, or a column is missing or has nulls.
    """
    version = read_metadata(path).get(b"mgrpo_journal", b"none").decode(errors="replace")
    if version not in SCHEMAS:
        raise DataError(
            f"{path} has journal version {version}; this package reads versions {' and '.join(SCHEMAS)}.",
            hint="read it with the package that wrote it.",
        )
    schema = SCHEMAS[version]
    if columns is not None:
        known = SCHEMAS[REWARDED].names
        columns = [name for name in columns if name in schema.names or name not in known]
    table = read_table(path, schema, columns)
    # A row has all scores or none, so each score column has as many nulls as the total.
    allowed = {name: table[SCORED].null_count for name in SCORES if SCORED in table.column_names}
    for name in table.column_names:
        if name not in OPTIONAL and table[name].null_count != allowed.get(name, 0):
            raise DataError(
                f"{path} lacks values in its column {name}.", hint="give a journal that this package wrote."
            )
    return table


def _groups(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    groups: list[Group] = []
    for row in rows:
        # Rows are in the order of writing: main (invocation 0) first, then its sub trajectories.
        if row["invocation"] == 0:
            if not groups or groups[-1].rollouts[-1].main.key.query != row["query"]:
                groups.append(Group(_question(row), []))
            groups[-1].rollouts.append(Rollout(_trajectory(row)))
        else:
            groups[-1].rollouts[-1].subs.append(_trajectory(row))
        if row[SCORED] is not None:
            score = Score(**{name.removeprefix("score_"): row[name] for name in SCORES if name in row})
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
        SEGMENTS.name: [len(segment.spans) for segment in t.segments],
        "messages": [_fields(message) for message in t.messages],
        "calls": [_fields(call) | {"arguments": json.dumps(call.arguments, ensure_ascii=False)} for call in t.calls],
    }


def _fields(record: Span | Message | Call | Evidence | Score) -> dict[str, Any]:
    # dataclasses.asdict would deep-copy every token id.
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
        _segments(row),
        [Message(**message) for message in row["messages"]],
        [Call(**call | {"arguments": json.loads(call["arguments"])}) for call in row["calls"]],
        row["answer"],
        row["violations"],
        row["parent"],
    )


def _segments(row: Mapping[str, Any]) -> list[Segment]:
    spans = [Span(**span | {"ids": tuple(span["ids"]), "logprobs": tuple(span["logprobs"])}) for span in row["spans"]]
    lengths = row.get(SEGMENTS.name, [len(spans)] if spans else [])
    left = iter(spans)
    return [Segment(list(islice(left, length))) for length in lengths]
