"""A damaged run hides nothing of the runs beside it, and says in one sentence which file is damaged and how."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mgrpo_lightning.records.ratios import write_ratios
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.viewer.export import export
from mgrpo_lightning.viewer.site import Site
from mgrpo_lightning.viewer.sources import Source
from tests.viewer.runs import received, write_run

STEP = "journal/step-000001.parquet"
RATIOS = "journal/ratios/000001.parquet"
CONFIG = "config.yaml"


def changed(change: Callable[[pa.Table], pa.Table], file: str = STEP) -> Callable[[Path], object]:
    def damage(run: Path) -> None:
        table = pq.read_table(run / file, partitioning=None)
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), run / file)

    return damage


def column(name: str, values: Callable[[pa.Table], Any]) -> Callable[[Path], object]:
    return changed(lambda table: table.set_column(table.column_names.index(name), name, values(table)))


def written(file: str, content: bytes) -> Callable[[Path], object]:
    def damage(run: Path) -> None:
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        (run / file).write_bytes(content)

    return damage


def truncated(file: str) -> Callable[[Path], object]:
    return lambda run: (run / file).write_bytes((run / file).read_bytes()[:-100])


def folder(file: str) -> Callable[[Path], object]:
    def damage(run: Path) -> None:
        (run / file).unlink(missing_ok=True)
        (run / file).mkdir(parents=True)

    return damage


def undecodable(table: pa.Table) -> Any:
    count, texts = len(table), b"\xff\xfe" * len(table)
    offsets = pa.py_buffer(torch.arange(0, 2 * count + 2, 2, dtype=torch.int32).numpy().tobytes())
    return pa.Array.from_buffers(pa.string(), count, [None, offsets, pa.py_buffer(texts)])


def without_texts(table: pa.Table) -> Any:
    return pa.array([None] * len(table), pa.list_(pa.int64()))


KINDS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    **{
        f"a journal without {name}": (changed(lambda t, name=name: t.drop_columns([name])), STEP, f"no column {name}")  # type: ignore[misc]
        for name in ("query", "role", "question", "score_total", "violations", "spans", "calls")
    },
    "a column of another type": (column("query", lambda t: pa.array(["x"] * len(t))), STEP, "x"),
    "a list of another type": (column("calls", without_texts), STEP, "cannot be read|lacks values"),
    "a key without a value": (column("role", lambda t: pa.nulls(len(t), pa.string())), STEP, "values .* role"),
    "a score in part": (
        column("score_correct", lambda t: pa.array([None, *t["score_correct"].to_pylist()[1:]])),
        STEP,
        "values .* score_correct",
    ),
    "text that is not UTF-8": (column("answer", undecodable), STEP, "UTF8"),
    "another version": (
        lambda run: pq.write_table(
            pq.read_table(run / STEP).replace_schema_metadata({"mgrpo_journal": "9"}), run / STEP
        ),
        STEP,
        "journal version 9",
    ),
    "a table that is none of ours": (
        lambda run: pq.write_table(pa.table({"a": [1]}), run / STEP),
        STEP,
        "journal version none",
    ),
    "a truncated journal": (truncated(STEP), STEP, "cannot be read"),
    "an empty journal": (written(STEP, b""), STEP, "cannot be read"),
    "no Parquet": (written(STEP, b"PAR1 torn"), STEP, "cannot be read"),
    "a folder for a journal": (folder(STEP), STEP, "cannot be read"),
    "truncated ratios": (truncated(RATIOS), RATIOS, "cannot be read"),
    "ratios without steps": (changed(lambda t: t.drop_columns(["step"]), RATIOS), RATIOS, "no column step"),
    "a config that is not UTF-8": (written(CONFIG, b"model: \xff\xfe"), CONFIG, "utf-8"),
    "a config that is no YAML": (written(CONFIG, b"model: [unclosed"), CONFIG, "not a config of a run"),
    "a config that is deep": (written(CONFIG, b"[" * 500), CONFIG, "not a config of a run"),
    "a config that is a list": (written(CONFIG, b"- model"), CONFIG, "it is a list, not a mapping"),
    "a config that is a text": (written(CONFIG, b"hello"), CONFIG, "it is a str, not a mapping"),
    "a config with a date that is none": (written(CONFIG, b"model: 2020-13-45"), CONFIG, "not a config of a run"),
    "a folder for a config": (folder(CONFIG), CONFIG, "cannot be read"),
    **{
        f"a config with {text}": (written(CONFIG, text.encode()), CONFIG, "not a mapping|is 5|is always TeamModule")
        for text in (
            "model: 5",
            "model: {init_args: [1]}",
            "model: {init_args: {roles: [main]}}",
            "model: {init_args: {roles: {main: 5}}}",
            "model: {class_path: Other, roles: {main: {}}}",
            "model: {roles: [main]}",
            "model: {roles: {main: 5}}",
            "model: {init_args: {roles: {main: {reward: 5}}}}",
            "model: {init_args: {roles: {main: {base_model: 5}}}}",
        )
    },
    "a folder among TensorBoard's files": (
        folder("tensorboard/events.out.tfevents.1"),
        "tensorboard",
        "cannot be read",
    ),
}
"""How a run is damaged, the file that is named, and words of the reason."""
HARMLESS: dict[str, Callable[[Path], object]] = {
    "an unfinished file": written("journal/.step-000010.parquet.tmp", b""),
    "no config yet": lambda run: None,
    "an empty config": written(CONFIG, b""),
    "a config without roles": written(CONFIG, b"model: {init_args: {roles: {main: }}}"),
    "a torn end of TensorBoard's": written("tensorboard/events.out.tfevents.1", b"\x18\0\0"),
    "a torn segment of the store": written("store/main/life-0000/segment-0000", b"torn"),
    "a file that goes while it is read": lambda run: (run / STEP).with_name("step-000002.parquet").symlink_to("gone"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_run(tmp_path_factory.mktemp("made") / "run", queries=1, validation=False)
    write_ratios(made / "journal", 1, {"main": {Key(1, 0, 1, 0): torch.tensor([0.1, 0.2, 0.3])}})
    return made


def damaged(tmp_path: Path, run: Path, damage: Callable[[Path], object]) -> Path:
    """A folder of runs with a damaged one between two good ones."""
    for name in ("a", "bad", "c"):
        shutil.copytree(run, tmp_path / "runs" / name)
    damage(tmp_path / "runs" / "bad")
    return tmp_path / "runs"


def look(site: Site) -> dict[str, Any]:
    """The index, after every page of it was looked at."""
    index = received(site.index())
    columns = index["columns"]
    for play, query, number in zip(columns["play"], columns["query"], columns["run"], strict=True):
        found = received(site.group(number, index["plays"][play]["slug"], query))
        assert "rollouts" in found or "bad" in found["problem"]
    received(site.search(1, "peak"))
    site.version()
    return dict(received(site.index()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_run_is_named_and_the_others_are_shown(
    tmp_path: Path, run: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage, file, reason = KINDS[kind]
    runs = damaged(tmp_path, run, damage)
    index = look(Site(Source.found(runs), live=True))
    assert [entry["name"] for entry in index["runs"]] == ["a", "bad", "c"]
    numbers = index["columns"]["run"]
    assert numbers.count(0) == numbers.count(2) == 4
    assert numbers.count(1) >= (2 if file == STEP else 4), "the other files of the damaged run"
    ((number, text),) = [(problem["run"], problem["text"]) for problem in index["problems"]]
    assert number == 1
    assert text.startswith(str(runs / "bad" / file))
    assert text.endswith(".")
    assert "\n" not in text
    assert re.search(reason, text), text
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_half_there_is_no_damage(tmp_path: Path, run: Path, kind: str) -> None:
    index = look(Site(Source.found(damaged(tmp_path, run, HARMLESS[kind])), live=True))
    assert len(index["columns"]["run"]) == 12
    assert index["problems"] == []


def test_what_a_table_hides_is_told_where_it_is_looked_at(tmp_path: Path, run: Path) -> None:
    calls = column("calls", lambda table: _with_arguments(table, "{not JSON"))
    site = Site(Source.found(damaged(tmp_path, run, calls)), live=True)
    assert received(site.index())["problems"] == [], "an index reads no texts"
    assert "rows that do not form rollouts" in received(site.group(1, "step-000001", 0))["problem"]
    assert site.group(1, "step-000009", 0) is None
    assert len(received(site.index())["problems"]) == 1
    page = export(Site(Source.found(tmp_path / "runs"), live=False), tmp_path / "page")
    written_index = received((page.parent / "data" / "index.js").read_text(encoding="ascii"))
    assert len(written_index["problems"]) == 1
    assert (page.parent / "data" / "2" / "step-000001" / "0.js").is_file()


def test_a_file_that_was_mended_is_shown_and_no_longer_named(tmp_path: Path, run: Path) -> None:
    runs = damaged(tmp_path, run, truncated(STEP))
    site = Site(Source.found(runs), live=True)
    assert len(look(site)["problems"]) == 1
    shutil.copy(run / STEP, runs / "bad" / STEP)
    index = look(site)
    assert index["problems"] == []
    assert len(index["columns"]["run"]) == 12


def _with_arguments(table: pa.Table, text: str) -> Any:
    rows: list[Any] = table["calls"].to_pylist()
    calls = [[call | {"arguments": text} for call in row] for row in rows]
    return pa.array(calls, table.schema.field("calls").type)
