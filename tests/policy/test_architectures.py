"""Every causal LM of transformers computes here what it does in transformers and PEFT, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policy.architectures import ARCHITECTURES, MUST_WORK, SUITE
from tests.policy.walk import PAGE, VERSIONS, Outcome, documented, outcome, row, table


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in SUITE else pytest.mark.slow) for kind in ARCHITECTURES]
)
def test_every_architecture_agrees_or_is_refused(tmp_path: Path, page: str, kind: str) -> None:
    """And docs/base_models.md says so."""
    found = outcome(kind, tmp_path)
    assert "\n" not in found.why
    if kind in MUST_WORK:
        assert found.verdict == "works"
    assert documented(page)[kind] == row(kind, found)


def test_the_docs_name_every_architecture_of_this_transformers(root: Path, page: str) -> None:
    told = documented(page)
    assert {kind: name for kind, (name, _, _) in told.items()} == ARCHITECTURES, (
        "run: python -m tests.policy.walk > docs/base_models.md"
    )
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for name in VERSIONS:
        assert next(pin for pin in pins if pin.startswith(f"{name}==")).replace("==", " ") in page


def test_a_page_says_what_was_found() -> None:
    found = {
        "llama": Outcome("works", ""),
        "bart": Outcome("refused", "has <a> b | c."),
        "bert": Outcome("refused", ""),
    }
    assert documented(table(found)) == {kind: row(kind, each) for kind, each in found.items()}
    assert "Of 3: 1 work, 2 are refused, with transformers " in table(found)
