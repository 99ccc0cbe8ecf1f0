"""Put each known bug back and see that its test notices.

Every ``rowNN_name.patch`` beside this file is a mutant: header lines ``Row:``, ``Trap:``, ``Test:``, then a unified
diff that puts one bug of docs/correctness.md back. For each one, in a copy of the source tree, the named test must
pass without the patch and fail with it. Survivors, patches that do not apply and tests that break in another way than
by failing make the exit status 1.

    python tests/mutants/run.py                      all of them
    python tests/mutants/run.py --rows 13,14 --jobs 2
    python tests/mutants/run.py --table > docs/correctness.md
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("mgrpo_lightning", "callbacks", "configs", "tests", "benchmarks", "docs", "pyproject.toml", "README.md")
"""What a copy holds, as far as it exists."""
ROWS = range(1, 40)
"""The traps this project owns."""
TIMEOUT = 900
"""Seconds after which a test counts as broken; far above what any takes."""

PREAMBLE = """# Traps of multi-turn GRPO, and the test that guards each

Each trap is a bug that a known project shipped, or that occurred while this one was built. Each mutant in
[tests/mutants](../tests/mutants) puts one bug back. Its test passes without the bug and fails with it. `make mutants`
checks this for all mutants.

This page is generated: `python tests/mutants/run.py --table > docs/correctness.md`.
"""


class MutantError(Exception):
    """A patch file that cannot be used."""


@dataclass(frozen=True)
class Mutant:
    """One patch file."""

    path: Path
    row: int
    trap: str
    test: str
    """Pytest node id, relative to the root."""

    @property
    def name(self) -> str:
        """The file name without its suffix."""
        return self.path.stem

    @property
    def targets(self) -> list[str]:
        """Files that the diff changes, relative to the root."""
        return re.findall(r"^\+\+\+ b/(\S+)", self.path.read_text(), flags=re.MULTILINE)


def load(path: Path) -> Mutant:
    """Parse a patch file.

    Raises:
        MutantError: A header line is missing or repeated, the name does not carry the row, or there is no diff.
    """
    header, separator, _ = path.read_text().partition("\n--- a/")
    if not separator:
        raise MutantError(f"{path.name}: no unified diff with a/ and b/ paths")
    values = {}
    for key in ("Row", "Trap", "Test"):
        found = re.findall(rf"^{key}: *(\S.*)$", header, flags=re.MULTILINE)
        if len(found) != 1:
            raise MutantError(f"{path.name}: {len(found)} header lines `{key}:`, one is needed")
        values[key] = found[0].strip()
    mutant = Mutant(path, int(values["Row"]), values["Trap"], values["Test"])
    if not re.fullmatch(rf"row{mutant.row:02d}_[a-z0-9_]+", path.stem):
        raise MutantError(f"{path.name}: row {mutant.row} is to be named row{mutant.row:02d}_short_name.patch")
    return mutant


def load_all(folder: Path = ROOT / "tests" / "mutants") -> list[Mutant]:
    """All mutants by row and name."""
    return sorted(map(load, folder.glob("*.patch")), key=lambda mutant: (mutant.row, mutant.name))


def names_a_test(mutant: Mutant, root: Path = ROOT) -> bool:
    """Whether the file of the named test defines the function (a parameter id is not looked at)."""
    file, _, function = mutant.test.partition("::")
    if not (root / file).is_file():
        return False
    tree = ast.parse((root / file).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return function.split("[")[0] in {node.name for node in tree.body if isinstance(node, functions)}


def copy_sources(target: Path, root: Path = ROOT) -> None:
    """Copy the source tree, links as links, without what git ignores."""
    for name in SOURCES:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "runs"))
        elif source.exists():
            shutil.copy2(source, target / name)


@contextmanager
def applied(mutant: Mutant, tree: Path) -> Iterator[None]:
    """The tree with the patch in it; the changed files are put back at the end.

    Raises:
        MutantError: The patch does not apply exactly, or leaves Python that does not parse.
    """
    originals = {tree / name: (tree / name).read_bytes() for name in mutant.targets if (tree / name).exists()}
    if len(originals) != len(mutant.targets):
        raise MutantError(f"{mutant.name}: changes files that do not exist: {mutant.targets}")
    command = ["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "--quiet", "--reject-file=-"]
    if shutil.which("patch") is None:
        command = ["git", "apply", "--whitespace=nowarn", "-"]
    try:
        # The ceiling keeps git from finding a repository around the copy and skipping files outside its index.
        environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.parent)}
        result = subprocess.run(
            command, cwd=tree, env=environment, input=mutant.path.read_bytes(), capture_output=True, check=False
        )
        if result.returncode:
            raise MutantError(f"{mutant.name}: does not apply: {(result.stdout + result.stderr).decode().strip()}")
        _check_syntax(mutant, originals)
        yield
    finally:
        for path, content in originals.items():
            path.write_bytes(content)


def _check_syntax(mutant: Mutant, paths: Iterable[Path]) -> None:
    for path in paths:
        if path.suffix == ".py":
            try:
                ast.parse(path.read_text())
            except SyntaxError as error:
                raise MutantError(f"{mutant.name}: {path.name} does not parse any more: {error}") from error


def run_test(test: str, tree: Path) -> tuple[str, str]:
    """Run one test in a tree: ``passed``, ``failed`` or ``broken``, and the end of its output."""
    # No byte code: a file patched within the same second, to the same size, would run as it was before.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "slow or not slow", test]
    try:
        result = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return "broken", f"ran longer than {TIMEOUT} s"
    tail = "\n".join((result.stdout + result.stderr).splitlines()[-25:])
    summary = result.stdout.strip().splitlines()[-1:] or [""]
    if result.returncode == 0 and re.search(r"\d+ passed", summary[0]):
        return "passed", tail
    # Exit status 1 alone may also be a fixture that raised.
    if result.returncode == 1 and re.search(r"\d+ failed", summary[0]) and "error" not in summary[0]:
        return "failed", tail
    return "broken", tail


class Runner:
    """Runs mutants in copies of the source tree, one copy a thread; unpatched results are kept by test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._local = threading.local()
        self._lock = threading.Lock()
        self._unpatched: dict[str, tuple[str, str]] = {}
        self._num_trees = 0

    def _tree(self) -> Path:
        if not hasattr(self._local, "tree"):
            with self._lock:
                self._num_trees += 1
                self._local.tree = self._folder / f"tree{self._num_trees}"
            self._local.tree.mkdir()
            copy_sources(self._local.tree)
        tree: Path = self._local.tree
        return tree

    def judge(self, mutant: Mutant) -> tuple[str, str]:
        """``killed``, or what is wrong, with details."""
        tree = self._tree()
        if mutant.test not in self._unpatched:
            self._unpatched[mutant.test] = run_test(mutant.test, tree)
        outcome, output = self._unpatched[mutant.test]
        if outcome != "passed":
            return f"test {outcome} unpatched", output
        try:
            with applied(mutant, tree):
                outcome, output = run_test(mutant.test, tree)
        except MutantError as error:
            return "does not apply", str(error)
        return {"failed": "killed", "passed": "SURVIVED"}.get(outcome, outcome), output


def table(mutants: Sequence[Mutant]) -> str:
    """The markdown page of all traps."""
    lines = [PREAMBLE, "| # | trap | test | mutant |", "|---|---|---|---|"]
    for mutant in mutants:
        trap = mutant.trap.replace("|", "\\|")
        file = mutant.test.split("::")[0]
        test = f"[{mutant.test.split('::')[-1]}](../{file})"
        lines.append(f"| {mutant.row} | {trap} | {test} | [{mutant.name}](../tests/mutants/{mutant.path.name}) |")
    missing = sorted(set(ROWS) - {mutant.row for mutant in mutants})
    if missing:
        lines += ["", f"Rows without a mutant: {', '.join(map(str, missing))}."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Judge the chosen mutants; 0 if all were killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=lambda text: {int(row) for row in text.split(",")}, help="only these, as 13,14")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--table", action="store_true", help="print docs/correctness.md and run nothing")
    options = parser.parse_args(arguments)
    mutants = load_all()
    if options.table:
        say(table(mutants).rstrip("\n"))
        return 0
    chosen = [mutant for mutant in mutants if options.rows is None or mutant.row in options.rows]
    if not chosen:
        parser.error("no mutant of these rows")
    alive = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        for mutant, (verdict, output) in zip(chosen, pool.map(Runner(Path(folder)).judge, chosen), strict=True):
            say(f"{mutant.row:>3}  {mutant.name:<44} {verdict}")
            if verdict != "killed":
                alive += 1
                say(output)
    say(f"{len(chosen) - alive} of {len(chosen)} mutants killed")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
