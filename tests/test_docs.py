"""The documentation: it builds without a warning, its commands exist, its error messages are ones that the code has."""

from __future__ import annotations

import pkgutil
import re
import runpy
from pathlib import Path

import pytest
import torch
import yaml

import mgrpo_lightning
from mgrpo_lightning import algorithm, callbacks, tasks
from mgrpo_lightning.algorithm.advantages import group_advantages
from mgrpo_lightning.algorithm.alignment import AlignmentConfig, align
from mgrpo_lightning.algorithm.config import MAIN_REWARD, SUB_REWARD
from mgrpo_lightning.algorithm.rewards import reward
from mgrpo_lightning.commands.help_pages import commands
from mgrpo_lightning.commands.slurm_job import read_cluster
from tests.support.started import Started


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[str, str]:
    folder = root / "docs"
    found = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in folder.rglob("*.md")}
    return found | {name: (root / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    words = [
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        "-d",
        str(tmp_path / "trees"),
        "docs",
        str(tmp_path / "site"),
    ]
    Started(words, module="sphinx").finish()
    site = tmp_path / "site"
    reference = (site / "team_file.html").read_text(encoding="utf-8")
    for key in ("rollouts_per_query", "shared_with", "discusses_with", "clip_high", "on_loss"):
        assert key in reference
    api = (site / "api.html").read_text(encoding="utf-8")
    public = [*mgrpo_lightning.__all__, *callbacks.__all__, *tasks.__all__]
    assert [name for name in public if name not in api and name != "__version__"] == []


def test_the_tables_of_the_team_file_are_those_of_the_code(root: Path, pages: dict[str, str]) -> None:
    page = runpy.run_path(str(root / "docs" / "team_file_reference.py"))["page"]
    text = pages["docs/team_file.md"]
    assert page(text) == text, "run `make reference`"
    assert "configs/three_roles.yaml" in text
    example, stopping = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert "EarlyStopping" in stopping
    assert yaml.safe_load(example) == yaml.safe_load((root / "configs" / "three_roles.yaml").read_text())


def test_every_page_is_in_the_table_of_contents(root: Path, pages: dict[str, str]) -> None:
    listed = set(
        re.findall(r"^[\w/]+$", "\n".join(re.findall(r"```{toctree}\n(.*?)```", pages["docs/index.md"], re.S)), re.M)
    )
    names = {name.removeprefix("docs/").removesuffix(".md") for name in pages if name.startswith("docs/")}
    assert listed == names - {"index"}


def test_pages_and_pictures_are_all_there_is(root: Path) -> None:
    """Records of runs are in benchmarks/records.jsonl.xz."""
    found = {path.suffix for path in (root / "docs").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert found == {".md", ".png", ".svg", ".py"}


def test_functions_on_the_page_of_the_algorithm_exist_and_none_is_left_out(pages: dict[str, str]) -> None:
    named = set(re.findall(r"`(mgrpo_lightning(?:\.\w+)+)`", pages["docs/algorithm.md"]))
    assert all(pkgutil.resolve_name(name) is not None for name in named)
    modules = [f"{algorithm.__name__}.{module.name}" for module in pkgutil.iter_modules(algorithm.__path__)]
    assert [module for module in modules if not any(name.startswith(f"{module}.") for name in named)] == []


def test_the_question_of_the_guide_is_read(pages: dict[str, str], tmp_path: Path) -> None:
    (line,) = re.findall(r"```json\n(.*?)```", pages["docs/guides/task.md"], re.DOTALL)
    path = tmp_path / "train.jsonl"
    path.write_text(line, encoding="utf-8")
    (question,) = tasks.JsonlTask(path=str(path), table_by=["language"]).questions("train")
    assert question.answers == ("Danube", "Donau")
    assert question.metadata["language"] == "en"


def test_the_cluster_file_of_the_guide_is_read(pages: dict[str, str], tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", pages["docs/slurm.md"], re.DOTALL)
    path = tmp_path / "cluster.yaml"
    path.write_text(block, encoding="utf-8")
    cluster = read_cluster(path, ["main", "searcher"])
    assert (cluster.job.stop_before, cluster.roles["searcher"].nodes) == (300, 2)


def test_messages_of_the_troubleshooting_page_are_in_the_code(root: Path, pages: dict[str, str]) -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (root / "mgrpo_lightning").rglob("*.py"))
    told = re.findall(r"^\| `([^`]+)` \|", pages["docs/troubleshooting.md"], re.MULTILINE)
    assert len(told) >= 12
    assert [message for message in told if message not in code] == []


def test_commands_configs_and_targets_in_the_documentation_exist(root: Path, pages: dict[str, str]) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for name, text in pages.items():
        assert set(re.findall(r"^ {4}mgrpo ([a-z-]+) ", text, re.MULTILINE)) <= set(commands()), name
        for module in re.findall(r"python -m (benchmarks(?:\.\w+)+)", text):
            assert (root / f"{module.replace('.', '/')}.py").exists(), (name, module)
        for path in re.findall(r"--config[= ]((?:configs|examples)/[\w/.]+\.yaml)", text):
            assert (root / path).exists(), (name, path)
        for target in re.findall(r"`make ([a-z][a-z0-9-]*)", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (name, target)


def test_the_readme_counts_bases_as_their_page_does(pages: dict[str, str]) -> None:
    (found,) = re.findall(r"Of (\d+): (\d+) work, (\d+) are refused", pages["docs/base_models.md"])
    numbers, work, refused = found
    assert f"| {numbers} causal LMs of transformers" in pages["README.md"]
    assert f"[{work} work, {refused} are refused]" in pages["README.md"]


def test_the_example_of_alignment_is_computed_as_written(pages: dict[str, str]) -> None:
    row = r"^\| [a-g] \| (\d) \| (\d) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|"
    rows = re.findall(row, pages["docs/concepts.md"], re.MULTILINE)
    right = [(float(main), float(expert)) for main, expert, *_ in rows]
    rewards = [reward(SUB_REWARD, valid=True, correct_main=main, expert=expert) for main, expert in right]
    shares = [share for rollout in align([2, 1, 3], AlignmentConfig(slots=2), seed=0).multiplicity for share in rollout]
    values = group_advantages(torch.tensor(rewards), torch.tensor(shares), std_floor=1e-6).values.tolist()
    computed = zip(rewards, shares, values, [share / 6 for share in shares], strict=True)
    for (_, _, *written), numbers in zip(rows, computed, strict=True):
        assert [float(text) for text in written] == pytest.approx(numbers, abs=0.006)
    leads = torch.tensor([reward(MAIN_REWARD, valid=True, correct=correct) for correct in (1.0, 0.0, 0.0)])
    found = group_advantages(leads, torch.ones(3), std_floor=1e-6).values.tolist()
    assert found == pytest.approx([1.41, -0.71, -0.71], abs=0.006)
