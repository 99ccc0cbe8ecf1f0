"""Every line of the tables that come from records stands in the pages, and every picture is among theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.paper import report, smollm2
from benchmarks.paper.records import read


@pytest.fixture(scope="module")
def pages(root: Path) -> set[str]:
    """Lines of all pages."""
    found = [root / "README.md", *(root / "docs").rglob("*.md")]
    return {line for path in found for line in path.read_text(encoding="utf-8").splitlines()}


def rows(text: str) -> list[str]:
    """Lines of tables without their titles, which a page may word in its own way."""
    lines = text.splitlines()
    titles = {lines[number - 1] for number, line in enumerate(lines) if line.startswith("|---")}
    return [line for line in lines if line.startswith("| ") and line not in titles]


@pytest.mark.parametrize("name", [name for name in report.REPORTS if name != "smollm2"])
def test_the_pages_have_what_the_records_say(
    name: str, pages: set[str], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = rows(report.REPORTS[name]())
    assert len(found) >= 4
    assert [line for line in found if line not in pages] == []
    drawn = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")]
    assert drawn
    assert [path for path in drawn if not (root / path).exists()] == []


def test_the_pages_have_the_last_try_of_smollm2_and_the_ends_of_those_before(pages: set[str]) -> None:
    last = list(read("smollm2").values())
    found = [*rows(smollm2.table(last)), *rows(smollm2.by_level(last))]
    assert [line for line in found if line not in pages] == []
    for name in smollm2.TRIES:
        *_, everything = rows(smollm2.table(list(read(name).values())))
        _, _, before, after, _, _, p, *_ = everything.split(" | ")
        assert any(f"| {before} |" in line and line.endswith(f"| {after} | {p} |") for line in pages), name


def test_a_benchmark_without_a_record_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.paper.records.FILE", tmp_path / "none.jsonl.xz")
    monkeypatch.setattr("sys.argv", ["report", "lag"])
    with pytest.raises(SystemExit):
        report.main()
    assert "there is no record of lag" in capsys.readouterr().err
