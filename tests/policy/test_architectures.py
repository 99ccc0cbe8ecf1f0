"""Every causal LM of transformers computes here what it does in transformers and PEFT, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policy import walk
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


def test_a_walk_that_was_broken_off_goes_on_and_one_that_is_wrong_writes_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(walk, "ROOT", tmp_path)
    monkeypatch.setattr(walk, "ARCHITECTURES", dict.fromkeys(("bert", "gpt2", "llama"), "X"))
    tried: list[str] = []
    ends: dict[str, BaseException] = {"gpt2": KeyboardInterrupt(), "llama": AssertionError("by 9 nats")}

    def attempt(kind: str, folder: Path) -> Outcome:
        tried.append(kind)
        if kind in ends:
            raise ends.pop(kind)
        return Outcome("works", "")

    monkeypatch.setattr(walk, "outcome", attempt)
    with pytest.raises(KeyboardInterrupt):
        walk.main()
    assert walk.main() == 1
    out, err = capsys.readouterr()
    assert not out
    assert "llama: by 9 nats" in err
    assert walk.main() == 0
    assert tried == ["bert", "gpt2", "gpt2", "llama", "llama"]
    assert [*documented(capsys.readouterr().out)] == ["bert", "gpt2", "llama"]
    assert not (tmp_path / "build" / "walk.jsonl").exists()
