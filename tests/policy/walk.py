"""Try every causal LM of transformers, and write the results to docs/base_models.md.

    python -m tests.policy.walk > docs/base_models.md

It takes a few minutes and shows its progress on stderr. Results are kept in build/walk.jsonl until the end, so an
interrupted walk continues. Remove the file if the package has changed since.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.supported import empty_model, refuse_unsupported
from tests.policy.architectures import ARCHITECTURES, BOUND, CONTEXTS, gap, linear_layers, make_tiny, tiny_config

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "base_models.md"
VERSIONS = {name: version(name) for name in ("transformers", "peft")}
PREAMBLE = """# Base models: which architectures work

A base works if a token gets the same log-probability in the sampler, in training, and in transformers with PEFT.
This must hold for a row alone, in a batch of mixed lengths, and up to `limits.context`. The table has every causal
language model of transformers. Each was built as a tiny random model and sampled with contexts of {contexts} tokens.
The bases that work agree to {bound:g}. The others are refused, for the reason in the last column.
[Your own model](guides/model.md) explains the requirements.

{counts}, with {versions}.

This page is generated: `python -m tests.policy.walk > docs/base_models.md`.

| `model_type` | class | result | condition or reason |
|---|---|---|---|
"""
_ROW = re.compile(r"^\| `([^`]+)` \| (\w+) \| (works|refused|not tried) \| (.*) \|$", re.MULTILINE)


class Outcome(NamedTuple):
    """Result for one architecture."""

    verdict: str
    """``works``, ``refused`` or ``not tried``."""
    why: str
    """One sentence: the reason of a refusal, or the condition under which the base works, if any."""


def outcome(kind: str, folder: Path) -> Outcome:
    """Try one architecture at both contexts.

    Args:
        kind: Its ``model_type``.
        folder: Folder for the tiny model's files.

    Raises:
        AssertionError: Its log-probabilities differ.
    """
    try:
        config = tiny_config(kind)
    except Exception as error:
        return Outcome("not tried", f"cannot be made tiny ({type(error).__name__}: {shorten(str(error), 200)})")
    lost: list[str] = []
    try:
        for context in CONTEXTS:
            refuse_unsupported(config, kind, context=context)
        make_tiny(config, folder)
        targets = linear_layers(empty_model(config))
        try:
            gaps = [gap(folder, context, targets=targets) for context in CONTEXTS]
        except ConfigurationError as error:
            if (leave := re.search(r"leave (\[.*\]) out of `adapter.target_modules`", str(error))) is None:
                raise
            lost = ast.literal_eval(leave[1])
            targets = [name for name in targets if name not in lost]
            gaps = [gap(folder, context, targets=targets) for context in CONTEXTS]
    except ConfigurationError as error:
        return Outcome("refused", re.sub(r"^base_model '[^']*' \(\w+\):? ", "", str(error).partition(" HINT:")[0]))
    assert all(found.largest <= BOUND for found in gaps), gaps
    if lost:
        return Outcome("works", f"without {lost} in `adapter.target_modules`, where peft loses adapters on load")
    try:
        refuse_unsupported(config, kind, context=CONTEXTS[-1] + 1)
    except ConfigurationError as error:
        if field := re.search(r"window of \d+ tokens \((\w+)\)", str(error)):
            return Outcome("works", f"up to the `{field[1]}` of its config.json")
    return Outcome("works", "")


def table(found: Mapping[str, Outcome]) -> str:
    """Return the page.

    Args:
        found: Results by ``model_type``.
    """
    verdicts = [each.verdict for each in found.values()]
    counted = [f"{verdicts.count(name)} {name}" for name in ("works", "refused", "not tried") if name in verdicts]
    head = PREAMBLE.format(
        contexts=" and ".join(map(str, CONTEXTS)),
        bound=BOUND,
        counts=f"Of {len(found)}: {', '.join(counted)}".replace(" works", " work").replace(" refused", " are refused"),
        versions=" and ".join(f"{name} {number}" for name, number in VERSIONS.items()),
    )
    rows = [
        f"| `{kind}` | {ARCHITECTURES[kind]} | {each.verdict} | {_cell(each.why)} |"
        for kind, each in sorted(found.items())
    ]
    return head + "\n".join(rows) + "\n"


def documented(page: str) -> dict[str, tuple[str, str, str]]:
    """Return class, verdict and reason by ``model_type``, as a page states them.

    Args:
        page: Text of the page.
    """
    return {kind: (name, verdict, why) for kind, name, verdict, why in _ROW.findall(page)}


def row(kind: str, found: Outcome) -> tuple[str, str, str]:
    """Return what the page must state about one architecture."""
    return ARCHITECTURES[kind], found.verdict, _cell(found.why)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    """Try all and print the page. Returns 1 and prints no page if log-probabilities of any architecture differ."""
    kept = ROOT / "build" / "walk.jsonl"
    kept.parent.mkdir(exist_ok=True)
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    found = {kind: Outcome(*rest) for kind, *rest in map(json.loads, lines)}
    wrong: list[str] = []
    with kept.open("a", encoding="utf-8") as file:
        for i, kind in enumerate(ARCHITECTURES, 1):
            if kind not in found:
                try:
                    with tempfile.TemporaryDirectory() as folder:
                        found[kind] = outcome(kind, Path(folder))
                except AssertionError as error:
                    wrong.append(f"{kind}: {error}")
                    continue
                print(json.dumps([kind, *found[kind]]), file=file, flush=True)
            print(f"{i} of {len(ARCHITECTURES)}: {kind} {' '.join(found[kind])}", file=sys.stderr)
    print(*wrong, sep="\n", file=sys.stderr)
    if not wrong:
        print(table(found), end="")
        kept.unlink()
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
