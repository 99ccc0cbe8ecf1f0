"""The SmolLM2 recipe without its model: its plan fits a laptop, its pages are cut, its test and its records add up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import LlamaConfig

from benchmarks.paper import smollm2
from benchmarks.runs import fit
from mgrpo_lightning.commands.dry_run import planned
from mgrpo_lightning.commands.fit import MgrpoCLI, make_cli
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.records.journal import Extra, write_groups
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Score, Segment, Span, Trajectory
from mgrpo_lightning.tasks.factbook.world import load_world
from mgrpo_lightning.tools.corpus_visit import Document
from mgrpo_lightning.unicode import CUT_MARK
from tests.support.tiny import make_tiny_tokenizer

SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
)
LAPTOP = 16
"""GiB; the plan is for conversations at their full context."""


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that says what SmolLM2 is, without its weights."""
    folder = tmp_path_factory.mktemp("shape")
    SMOLLM2.save_pretrained(folder)
    make_tiny_tokenizer().save_pretrained(folder)
    return folder


def parsed(options: Sequence[str], shape: Path, root: Path) -> MgrpoCLI:
    bases = [f"--model.roles.{role}.base_model={shape}" for role in ("main", "searcher")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("sys.argv", ["mgrpo"])
        return make_cli([*options, *bases], run=False)


@pytest.fixture(scope="module")
def team(shape: Path, root: Path) -> MgrpoCLI:
    return parsed(smollm2.TEAM, shape, root)


@pytest.fixture(scope="module")
def warm_start(shape: Path, root: Path) -> MgrpoCLI:
    return parsed(smollm2.WARM_START, shape, root)


def test_the_plans_fit_a_laptop(team: MgrpoCLI, warm_start: MgrpoCLI) -> None:
    for cli in (team, warm_start):
        assert planned(cli.model, cli.datamodule, on_gpu=False).total / 2**30 < LAPTOP


def test_the_team_starts_where_the_warm_start_exports(team: MgrpoCLI, warm_start: MgrpoCLI) -> None:
    for role, config in team.model.roles.items():
        exported = Path(warm_start.trainer.default_root_dir) / "adapters" / role
        assert Path(config.adapter.path or "").resolve() == exported
        learnt = warm_start.model.roles[role]
        assert (learnt.adapter.path, learnt.objective.kind) == (None, "supervised")
        assert (learnt.limits, learnt.system_prompt) == (config.limits, config.system_prompt)
    assert warm_start.datamodule.source == "demonstrations"


def test_pages_are_cut_to_at_most_256_tokens_at_the_border_of_a_sentence(team: MgrpoCLI) -> None:
    limit = team.model.roles["searcher"].limits.observation
    assert limit <= 256
    chat = Chat(make_tiny_tokenizer())
    page = load_world()["factbook/france"]
    visits = [Document(page.title, page.passages).read(passage.field) for passage in page.passages]
    long = [text for text in visits if len(chat.encode(text)) > limit]
    assert long
    for text in long:
        shown = chat.cut(text, limit)
        head, mark = shown.rsplit("\n", 1)
        assert len(chat.encode(shown)) <= limit
        assert mark == CUT_MARK
        assert text.startswith(head)
        assert head[-1] in ".!?;" or text[len(head)] == "\n"


def played(step: int, query: int, *, correct: float) -> Group:
    """A group of one: five tokens, two of them sampled."""
    main = Trajectory("main", Key(step, query, 0, 0), "?", segments=[Segment([Span("observation", (1, 2, 3))])])
    main.segments[0].spans.append(Span("action", (4, 5), (-1.0, -1.0)))
    return Group(Question(f"q{query}", "?", ("a",)), [Rollout(main, scores={0: Score(1.0, correct=correct)})])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run: of two questions the first became right; of two training rollouts one moved the adapter."""
    folder = tmp_path / "run-0"
    for step, answers in ((0, (0, 0)), (1, (1, 0))):
        write_groups(folder / "journal", step, [played(step, q, correct=a) for q, a in enumerate(answers)], "validate")
    extras = {Key(0, query, 0, 0): Extra(advantage, 1.0) for query, advantage in enumerate((0.5, 0.0))}
    write_groups(folder / "journal", 0, [played(0, q, correct=1) for q in (0, 1)], "train", extras)
    results = {"after": {}, "steps": 1, "seconds": {"fit": 1800.0}, "history": []}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def test_a_record_has_answers_and_costs(run: Path) -> None:
    found = smollm2.record(run, fit([], run))
    assert found["right"] == {"q0": [0, 1], "q1": [0, 0]}
    assert (found["hours"], found["trained_tokens"], found["trained_actions"]) == (0.5, 5, 2)


def test_the_table_adds_up_the_runs(run: Path) -> None:
    one = smollm2.record(run, fit([], run))
    *_, single, both = smollm2.table([one, one]).splitlines()
    assert single == "| run-0 | 2 | 0.0% | 50.0% | 1 | 0 | 1 | 5 | 0.50 |"
    assert both == "| all | 2 | 0.0% | 50.0% | 1 | 0 | 1 | 10 | 1.00 |"
