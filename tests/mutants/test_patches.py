"""The fast part of `make mutants`: every patch parses, applies and names a test; the table in the docs is current."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent


def load_runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


run = load_runner()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("tree")
    run.copy_sources(target)
    return target


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.patch")), ids=lambda path: path.stem)
def test_patch_applies_and_names_a_test(path: Path, tree: Path) -> None:
    mutant = run.load(path)
    assert mutant.row in run.ROWS
    assert run.names_a_test(mutant), f"no test {mutant.test}"
    before = {name: (tree / name).read_bytes() for name in mutant.targets}
    with run.applied(mutant, tree):
        assert all((tree / name).read_bytes() != content for name, content in before.items())
    assert all((tree / name).read_bytes() == content for name, content in before.items())


def test_the_table_in_the_docs_is_current(root: Path) -> None:
    page = root / "docs" / "correctness.md"
    assert page.read_text() == run.table(run.load_all()), (
        "run: python tests/mutants/run.py --table > docs/correctness.md"
    )


PATCH = """Row: 7
Trap: a trap
Test: tests/test_x.py::test_x

--- a/mgrpo_lightning/x.py
+++ b/mgrpo_lightning/x.py
@@ -1,3 +1,3 @@
 one = 1
-two = 2
+two = 3
 three = 3
"""
SOURCE = "one = 1\ntwo = 2\nthree = 3\n"
TEST = "from mgrpo_lightning.x import two\n\ndef test_x() -> None:\n    assert {}\n"


def project(folder: Path, *, patch: str = PATCH, source: str = SOURCE, test: str = "two == 2") -> Path:
    (folder / "mgrpo_lightning").mkdir()
    (folder / "mgrpo_lightning" / "__init__.py").touch()
    (folder / "mgrpo_lightning" / "x.py").write_text(source)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_x.py").write_text(TEST.format(test))
    (folder / "row07_x.patch").write_text(patch)
    return folder


@pytest.mark.parametrize(
    ("verdict", "options"),
    [
        ("killed", {}),
        ("SURVIVED", {"test": "True"}),
        ("test failed unpatched", {"test": "two == 5"}),
        ("does not apply", {"source": SOURCE.replace("one", "uno")}),
        ("does not apply", {"patch": PATCH.replace("+two = 3", "+two = = 3")}),
        ("broken", {"patch": PATCH.replace("+two = 3", "+tow = 3")}),
    ],
)
def test_verdicts(verdict: str, options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "trees").mkdir()
    root = project(tmp_path / "project", **options)
    copy = run.copy_sources
    monkeypatch.setattr(run, "copy_sources", lambda target: copy(target, root))
    assert run.Runner(tmp_path / "trees").judge(run.load(root / "row07_x.patch"))[0] == verdict


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (PATCH.replace("Trap: a trap\n", ""), "0 header lines `Trap:`"),
        (PATCH.replace("Row: 7", "Row: 7\nRow: 8"), "2 header lines `Row:`"),
        (PATCH.replace("Row: 7", "Row: 8"), "row08_"),
        (PATCH.replace("--- a/", "--- "), "no unified diff"),
    ],
)
def test_a_malformed_patch_is_named(patch: str, message: str, tmp_path: Path) -> None:
    path = project(tmp_path, patch=patch) / "row07_x.patch"
    with pytest.raises(run.MutantError, match=message):
        run.load(path)
