"""What is shipped: package list, wheel content, the package installed away from its source, pins within the ranges."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LINKS = ("callbacks", "configs")
FILES = (
    *("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"),
    *("CITATION.cff", "CHANGELOG.md", "constraints.txt"),
)


@pytest.fixture(scope="session")
def pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def pins(root: Path) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without a network."""
    return build_wheel(root, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("site")
    run_pip("install", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


def run_pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


def build_wheel(root: Path, folder: Path, *, spoil: Callable[[Path], None] = lambda source: None) -> Path:
    """Build from a copy, so that neither an older build nor this one leaves anything behind."""
    source = copy_source(root, folder)
    spoil(source)
    return built(source, folder)


def copy_source(root: Path, folder: Path) -> Path:
    """The files that a build reads."""
    source = folder / "source"
    source.mkdir()
    for name in FILES:
        shutil.copy(root / name, source)
    for name in ("mgrpo_lightning", *LINKS):
        shutil.copytree(root / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return source


def built(source: Path, folder: Path) -> Path:
    """The wheel of a source, in a folder."""
    run_pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


def lose_links(source: Path) -> None:
    """What a zip download, or a clone with core.symlinks=false, makes of the links: files that hold the target."""
    for name in LINKS:
        (source / "mgrpo_lightning" / name).unlink()
        (source / "mgrpo_lightning" / name).write_text(f"../{name}", encoding="utf-8")


def tree(root: Path) -> list[Path]:
    """Every file of the package, by the path it is imported under."""
    found = (
        Path(folder, name).relative_to(root)
        for folder, _, names in os.walk(root / "mgrpo_lightning", followlinks=True)
        for name in names
        if "__pycache__" not in folder
    )
    return sorted(found)


def package_files(wheel: Path) -> list[Path]:
    with ZipFile(wheel) as archive:
        return sorted(Path(name) for name in archive.namelist() if name.startswith("mgrpo_lightning/"))


def metadata(archive: ZipFile) -> Message:
    """What a wheel says of itself; the README is the payload."""
    (name,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
    return message_from_bytes(archive.read(name))


def run_installed(site: Path, code: str, folder: Path) -> str:
    """Run code against the installed wheel from a folder that knows nothing of the source."""
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_mgrpo(site: Path, arguments: list[str], folder: Path) -> str:
    """What the installed console script prints."""
    code = f"""
from mgrpo_lightning.commands.main import main
sys.argv = ["mgrpo", *{arguments}]
try:
    main()
except SystemExit as end:
    if end.code:
        raise
"""
    return run_installed(site, code, folder)


def test_the_list_of_packages_is_the_tree(root: Path, pyproject: dict[str, Any]) -> None:
    listed = pyproject["tool"]["setuptools"]["packages"]
    assert listed == sorted(listed)
    assert listed == sorted(".".join(path.parent.parts) for path in tree(root) if path.name == "__init__.py")


def test_the_wheel_holds_every_file_of_the_package(root: Path, wheel: Path) -> None:
    assert package_files(wheel) == tree(root)


def test_the_wheel_says_whose_it_is_and_carries_every_licence(root: Path, wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        told = metadata(archive)
        licences = {name.partition("/licenses/")[2] for name in archive.namelist() if "/licenses/" in name}
    assert (told["Author"], told["License-Expression"]) == ("The mgrpo_lightning authors", "Apache-2.0 AND MIT")
    beside = [path.relative_to(root) for path in (root / "mgrpo_lightning").rglob("*.LICENSE")]
    assert licences == {"LICENSE", "NOTICE", *map(str, beside)}
    notice = (root / "NOTICE").read_text(encoding="utf-8")
    assert [path.name for path in beside if path.stem not in notice] == []


def test_the_readme_of_the_wheel_leads_nowhere_that_a_package_index_lacks(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        text = str(metadata(archive).get_payload())
    assert "1. Read examples/one_step.py" in text, "what was a link is still told"
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    assert [target for target in targets if "://" not in target] == []


def test_the_citation_names_this_version(root: Path, pyproject: dict[str, Any]) -> None:
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == pyproject["project"]["version"]
    assert [author["name"] for author in cited["authors"]] == [one["name"] for one in pyproject["project"]["authors"]]


def test_callbacks_configs_and_data_are_among_them(wheel: Path) -> None:
    names = {str(path) for path in package_files(wheel)}
    assert {
        "mgrpo_lightning/py.typed",
        "mgrpo_lightning/callbacks/progress.py",
        "mgrpo_lightning/configs/quickstart.yaml",
        "mgrpo_lightning/tasks/factbook/snapshot.jsonl.xz",
        "mgrpo_lightning/tasks/factbook/PROVENANCE.md",
    } <= names
    assert any(re.fullmatch(r"mgrpo_lightning/pocket/.*\.safetensors", name) for name in names)


def test_a_source_without_symlinks_makes_the_same_wheel(root: Path, wheel: Path, tmp_path: Path) -> None:
    assert package_files(build_wheel(root, tmp_path, spoil=lose_links)) == package_files(wheel)


def test_the_sdist_makes_the_same_wheel_and_has_no_tests(root: Path, wheel: Path, tmp_path: Path) -> None:
    source = copy_source(root, tmp_path)
    for name in ("tests", "benchmarks", "docs", "examples"):
        (source / name).mkdir()
        (source / name / "test_something.py").touch()
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (packed,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(packed, tmp_path / "sdist", filter="data")
    (unpacked,) = (tmp_path / "sdist").iterdir()
    folders = {path.name for path in unpacked.iterdir() if path.is_dir()}
    assert folders == {"mgrpo_lightning", "mgrpo_lightning.egg-info", *LINKS}
    assert {*FILES} <= {path.name for path in unpacked.iterdir()}
    assert package_files(built(unpacked, tmp_path)) == package_files(wheel)


def test_the_installed_package_is_whole_away_from_its_source(site: Path, tmp_path: Path) -> None:
    code = """
import importlib.util
from importlib.resources import files
import mgrpo_lightning.callbacks
import mgrpo_lightning.configs
assert mgrpo_lightning.callbacks.__file__.startswith(sys.path[0])
assert (files("mgrpo_lightning.configs") / "quickstart.yaml").is_file()
assert {"callbacks", "configs"}.isdisjoint(sys.modules)
print(importlib.util.find_spec("callbacks"), importlib.util.find_spec("configs"))
"""
    assert run_installed(site, code, tmp_path) == "None None\n"


def test_the_console_script_answers(site: Path, wheel: Path, tmp_path: Path) -> None:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "mgrpo = mgrpo_lightning.commands.main:main" in archive.read(name).decode()
    assert "\n  fit          train a team" in run_mgrpo(site, ["--help"], tmp_path)
    assert run_mgrpo(site, ["fit", "--help"], tmp_path).startswith("mgrpo fit: train a team")


def test_an_installed_mgrpo_finds_the_packaged_config(site: Path, tmp_path: Path) -> None:
    arguments = ["fit", "--config", "pkg:quickstart.yaml", "--print_config"]
    assert "base_model: pocket" in run_mgrpo(site, arguments, tmp_path)


def test_only_the_command_line_knows_the_callbacks(root: Path) -> None:
    """Callbacks depend on the core, never the other way round."""
    for path in tree(root):
        if path.suffix == ".py" and path.parts[1] not in ("callbacks", "commands"):
            for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not any(name.startswith("mgrpo_lightning.callbacks") for name in names), path


def test_links_lead_to_the_top_level_folders(root: Path) -> None:
    for name in LINKS:
        assert os.readlink(root / "mgrpo_lightning" / name) == f"../{name}"


def test_every_dependency_is_bounded_and_pinned_within_its_range(
    pyproject: dict[str, Any], pins: dict[str, str]
) -> None:
    project = pyproject["project"]
    core = [Requirement(text) for text in project["dependencies"]]
    extra = [Requirement(text) for text in project["optional-dependencies"]["dev"]]
    for requirement in (*core, *extra):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
    for requirement in core:
        assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}, requirement


APART = ("mlflow", "wandb")
"""Extras that bring narrow versions of what others need."""


def test_the_all_extra_names_every_other_extra(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    (everything,) = (Requirement(text) for text in extras["all"])
    assert everything.extras == set(extras) - {"all", *APART}


def test_make_and_the_pins_agree_on_torch(root: Path, pins: dict[str, str]) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    assert f"TORCH ?= torch=={pins['torch']}\n" in makefile


def test_pins_name_no_place_of_the_machine_that_made_them(pins: dict[str, str]) -> None:
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins.values())
