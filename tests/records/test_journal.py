import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrpo_lightning.errors import DataError, MgrpoError
from mgrpo_lightning.records.journal import Extra, read_columns, read_groups, training_files, write_groups
from mgrpo_lightning.records.journal_schema import SCHEMA
from mgrpo_lightning.records.question import Evidence, Question
from mgrpo_lightning.records.trajectory import Call, Group, Key, Message, Rollout, Score, Segment, Span, Trajectory

STEP = 12
texts = st.text(max_size=6)
floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=3,
)
functions = st.dictionaries(texts, st.none() | floats, max_size=2)
scores = st.builds(Score, floats, floats, floats, floats, floats, st.booleans(), functions)
calls = st.builds(
    Call,
    st.integers(0, 9),
    texts,
    st.dictionaries(texts, json_values, max_size=2),
    texts,
    st.booleans(),
    st.none() | st.integers(1, 9),
    floats,
)
messages = st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), texts)
questions = st.builds(
    Question,
    texts,
    texts,
    st.lists(texts, max_size=2).map(tuple),
    texts,
    st.lists(st.builds(Evidence, texts, texts, texts, texts, texts), max_size=2).map(tuple),
    st.dictionaries(texts, texts, max_size=2),
)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    ids = tuple(draw(st.lists(st.integers(0, 2**31 - 1), max_size=4)))
    if draw(st.booleans()):
        return Span("observation", ids)
    logprobs = tuple(draw(st.floats(max_value=0, width=32, allow_nan=False)) for _ in ids)
    return Span("action", ids, logprobs, draw(st.integers(0, 9)), draw(st.booleans()))


@st.composite
def trajectories(draw: st.DrawFn, key: Key) -> Trajectory:
    return Trajectory(
        draw(st.sampled_from(["main", "searcher"])),
        key,
        draw(texts),
        draw(floats),
        [Segment(one) for one in draw(st.lists(st.lists(spans(), min_size=1, max_size=3), max_size=3))],
        draw(st.lists(messages, max_size=3)),
        draw(st.lists(calls, max_size=2)),
        draw(st.none() | texts),
        draw(st.lists(texts, max_size=2)),
        draw(st.integers(0, 3)) if key.invocation else None,
    )


@st.composite
def group_lists(draw: st.DrawFn) -> list[Group]:
    groups = []
    for query in sorted(draw(st.sets(st.integers(0, 5), min_size=1, max_size=3))):
        rollouts = []
        for k in range(draw(st.integers(1, 2))):
            keys = [Key(STEP, query, k, invocation) for invocation in range(draw(st.integers(1, 3)))]
            played = [draw(trajectories(key)) for key in keys]
            scored = {key.invocation: draw(scores) for key in keys if draw(st.booleans())}
            rollouts.append(Rollout(played[0], played[1:], scored))
        groups.append(Group(draw(questions), rollouts))
    return groups


@settings(max_examples=40)
@given(groups=group_lists())
def test_groups_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, groups: list[Group]) -> None:
    assert read_groups(write_groups(tmp_path_factory.mktemp("journal"), STEP, groups)) == groups


def a_group(**changes: Any) -> Group:
    spans = [Span("observation", (1, 2)), Span("action", (3, 4), (-0.5, -1.25), version=7)]
    main = Trajectory("main", Key(STEP, changes.pop("query", 0), 0, 0), "Who?", segments=[Segment(spans)], **changes)
    return Group(Question("q1", "Who?", ("me",)), [Rollout(main, scores={0: Score(1.0, total=0.1)})])


@pytest.mark.parametrize(
    ("stage", "query", "name"),
    [
        ("train", 0, "step-000012.parquet"),
        ("validate", 0, "validation-000012.parquet"),
        ("validate", 64, "validation-000012-000064.parquet"),
        ("predict", 0, "prediction-000012.parquet"),
    ],
)
def test_file_names(tmp_path: Path, stage: Any, query: int, name: str) -> None:
    path = write_groups(tmp_path / "journal", STEP, [a_group(query=query)], stage)
    assert path == tmp_path / "journal" / name
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_a_notebook_reads_columns_without_this_package(tmp_path: Path) -> None:
    group = a_group(calls=[Call(0, "search", {"query": "é"}, "page")])
    extras = {Key(STEP, 0, 0, 0): Extra(advantage=1.5, coefficient=0.25)}
    table = pq.read_table(write_groups(tmp_path, STEP, [group], extras=extras))
    assert table.schema.equals(SCHEMA)
    row = table.to_pylist()[0]
    expected = {"step": 12, "score_total": 0.1, "advantage": 1.5, "coefficient": 0.25, "num_tokens": 4, "valid": True}
    assert {name: row[name] for name in expected} == expected
    assert json.loads(row["calls"][0]["arguments"]) == {"query": "é"}


def test_several_segments_are_kept_in_a_column_of_their_own(tmp_path: Path) -> None:
    group, plain = a_group(), a_group(query=1)
    group.rollouts[0].main.segments.append(Segment([Span("observation", (9,)), Span("action", (3,), (-2.0,))]))
    path = write_groups(tmp_path, STEP, [group, plain])
    assert [row["segments"] for row in pq.read_table(path).to_pylist()] == [[2, 2], [2]]
    assert read_groups(path) == [group, plain]
    metadata = pq.read_schema(path).metadata
    assert metadata[b"mgrpo_journal"] == b"2", "a package that knows no segments would join them"
    assert read_columns(path, SCHEMA.names).num_rows == 2


def test_values_of_functions_are_kept_in_a_column_of_their_own(tmp_path: Path) -> None:
    group, plain = a_group(), a_group(query=1)
    group.rollouts[0].scores[0] = Score(1.0, total=0.4, functions={"wander": 0.1 + 0.2, "brevity": None})
    plain.rollouts[0].scores.clear()
    path = write_groups(tmp_path, STEP, [group, plain])
    assert read_groups(path) == [group, plain]
    metadata = pq.read_schema(path).metadata
    assert metadata[b"mgrpo_journal"] == b"3", "a package that knows no functions would replay other rewards"
    names = [*SCHEMA.names, "score_functions"]
    assert read_columns(path, names).column_names == names
    before = write_groups(tmp_path, STEP, [plain])
    assert read_columns(before, names).column_names == SCHEMA.names


def test_what_nobody_gave_is_null(tmp_path: Path) -> None:
    group = a_group()
    group.rollouts[0].scores.clear()
    row = pq.read_table(write_groups(tmp_path, STEP, [group])).to_pylist()[0]
    assert [row[name] for name in ("parent", "answer", "score_total", "advantage", "coefficient")] == [None] * 5


def test_log_probabilities_keep_every_float32_bit(tmp_path: Path) -> None:
    values = np.array([-1e-45, -0.0, -3.4e38, -1 / 3, -math.pi], dtype=np.float32)
    span = Span("action", tuple(range(5)), tuple(float(value) for value in values))
    group = a_group()
    group.rollouts[0].main.segments = [Segment([span])]
    read = read_groups(write_groups(tmp_path, STEP, [group]))[0].rollouts[0].main.spans[0]
    assert np.array(read.logprobs, dtype=np.float32).tobytes() == values.tobytes()


def test_a_step_written_again_replaces_the_old_file(tmp_path: Path) -> None:
    write_groups(tmp_path, STEP, [a_group(answer="old")])
    path = write_groups(tmp_path, STEP, [a_group(answer="new")])
    assert [group.rollouts[0].main.answer for group in read_groups(path)] == ["new"]
    assert len(list(tmp_path.iterdir())) == 1


def test_fewer_questions_than_before_leave_nothing_of_them(tmp_path: Path) -> None:
    for query in (0, 6):
        write_groups(tmp_path, STEP, [a_group(query=query)], "validate", last=query == 6)
    write_groups(tmp_path, STEP + 1, [a_group(query=6)], "validate", last=True)
    write_groups(tmp_path, STEP, [a_group(query=0)], "validate")
    assert len(list(tmp_path.iterdir())) == 3, "another rank may have later ones"
    write_groups(tmp_path, STEP, [a_group(query=0)], "validate", last=True)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("before", [[0, 2, 4, 6], [0, 3, 5], [0]])
@pytest.mark.parametrize("after", [[0], [0, 4], [0, 2, 5]])
def test_a_step_divided_among_other_ranks_leaves_no_part_of_before(
    tmp_path: Path, before: list[int], after: list[int]
) -> None:
    """Whichever rank writes first."""
    (tmp_path / "step-000012-copy.parquet").write_bytes(b"a user's own")
    for starts, text in ((before, "old"), (after[::-1], "new")):
        for first in starts:
            last = min([start for start in starts if start > first], default=8)
            write_groups(tmp_path, STEP, [a_group(query=query, answer=text) for query in range(first, last)])
        write_groups(tmp_path, STEP + 1, [a_group(query=3)])
    groups = [group for path in training_files(tmp_path)[STEP] for group in read_groups(path)]
    assert [(g.rollouts[0].main.key.query, g.rollouts[0].main.answer) for g in groups] == [(q, "new") for q in range(8)]
    assert len(training_files(tmp_path)[STEP + 1]) == 1
    assert (tmp_path / "step-000012-copy.parquet").exists()


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_groups(tmp_path, STEP, [a_group(answer="old")])
    written = pq.write_table

    def write_to_full_disk(table: pa.Table, where: Path, **options: Any) -> None:
        where.write_bytes(b"half")
        with open("/dev/full", "wb") as full:  # open, as a failing writer may remove the path it was given
            written(table, full, **options)

    monkeypatch.setattr(pq, "write_table", write_to_full_disk)
    with pytest.raises(MgrpoError, match=r"step-000012.parquet.*HINT"):
        write_groups(tmp_path, STEP, [a_group(answer="new")])
    assert read_groups(path)[0].rollouts[0].main.answer == "old"


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = write_groups(tmp_path, STEP, [a_group()])
    pq.write_table(pq.read_table(path).replace_schema_metadata({"mgrpo_journal": "99"}), path)
    with pytest.raises(DataError, match=r"version 99.*HINT"):
        read_groups(path)


def test_a_foreign_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="version none"):
        read_groups(tmp_path / "a.parquet")


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "missing", "bits"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = write_groups(tmp_path, STEP, [a_group()])
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = content[:200] + bytes(255 - byte for byte in content[200:400]) + content[400:]
        path.write_bytes({"cut": content[:-50], "garbage": b"x" * 500, "empty": b"", "bits": middle}[damage])
    with pytest.raises(DataError, match=r"step-000012.parquet.*HINT"):
        read_groups(path)
