"""Every table that comes from records stands in the pages, with its command and machine; every picture is theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import records, report
from benchmarks.origin import where

RECORDED = [name for name in report.REPORTS if records.under(name)]


@pytest.fixture(scope="module")
def pages(root: Path) -> str:
    """All pages."""
    found = [root / "README.md", *(root / "docs").rglob("*.md")]
    return "\n".join(path.read_text(encoding="utf-8") for path in found)


def tables(text: str) -> list[str]:
    return [block for block in text.split("\n\n") if block.startswith("| ")]


@pytest.mark.parametrize("name", RECORDED)
def test_the_pages_have_the_tables_of_the_records(
    name: str, pages: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = tables(report.REPORTS[name]())
    assert found
    assert [table for table in found if f"\n{table}\n" not in pages] == []
    drawn = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")]
    assert [path for path in drawn if not (root / path).exists()] == []


def test_every_record_is_reported() -> None:
    reported = {one for name in report.REPORTS for one in records.under(name)}
    assert reported == set(records.load(records.FILE))


def test_the_pages_have_the_command_and_the_machine_of_every_result(pages: str) -> None:
    text = " ".join(pages.split())
    for name, record in records.load(records.FILE).items():
        if "result" in record:
            command = re.sub(r" --record( [^-]\S*)?", "", record["command"])
            assert command in text, name
            assert where(record) in text, name


def test_accuracies_of_the_readme_are_those_of_the_tables(root: Path) -> None:
    docs = [path.read_text(encoding="utf-8") for path in (root / "docs").glob("*.md")]
    cells = {word for page in docs for line in page.splitlines() if line.startswith("| ") for word in line.split()}
    (results,) = re.findall(r"\n## Results\n(.*?)\n## ", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    found = re.findall(r"\d+\.\d%", results)
    assert len(found) >= 6
    assert [share for share in found if share not in cells] == []


def test_the_readme_has_the_memory_that_was_measured(root: Path) -> None:
    largest = max(f["measured"] for record in records.under("speed/memory").values() for f in record["result"])
    assert f" {largest / 2**30:.1f} GiB measured" in (root / "README.md").read_text(encoding="utf-8")


def test_a_benchmark_without_a_record_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(records, "FILE", tmp_path / "none.jsonl.xz")
    monkeypatch.setattr("sys.argv", ["report", "paper/lag"])
    with pytest.raises(SystemExit):
        report.main()
    assert "there is no record of paper/lag" in capsys.readouterr().err
