"""``mgrpo export RUN``: write a run's adapters as folders for use elsewhere, or merge them into their base.

Each folder has the role's name. It holds PEFT's files, the tokenizer, the role's prompt, tools and limits, and a model
card. The adapters are those of the run's last checkpoint.

    mgrpo export runs/quickstart --out exported
    mgrpo export runs/quickstart --out merged --merge
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        "mgrpo export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("run", type=Path, help="run folder")
    made.add_argument("--out", type=Path, required=True, help="folder for the roles' folders")
    made.add_argument("--role", help="export the adapter of this role only")
    made.add_argument("--ckpt_path", default="last", help="checkpoint; default: the last one of the run that loads")
    made.add_argument(
        "--base", metavar="DIR", help="the adapters name this base: a folder of `mgrpo export-base`, or its hub name"
    )
    made.add_argument("--merge", action="store_true", help="write whole models: base and adapter added up")
    made.add_argument(
        "--onto",
        choices=("dequantised", "original"),
        default="dequantised",
        help="with --merge: the base to merge into; the adapter was trained on the dequantised one",
    )
    made.add_argument(
        "--push", metavar="REPO", help="upload each folder to the hub, as REPO-ROLE; a new repository is private"
    )
    return made


def main(args: Sequence[str]) -> None:
    """Run ``mgrpo export``.

    Args:
        args: Command line after ``mgrpo export``.

    Raises:
        MgrpoError: The folder is not a run, has no such role, or the output cannot be written or uploaded.
    """
    made = parser()
    given = made.parse_args(args)
    if given.onto == "original" and not given.merge:
        made.error("--onto needs --merge")
    if given.base and given.merge:
        made.error("--base is for adapters; a merged model needs no base")
    from mgrpo_lightning.commands.exporting import Exporter, push, refuse_local  # imports torch, which takes seconds

    exporter = Exporter(given.run, ckpt_path=given.ckpt_path)
    roles = exporter.roles(given.role)
    if given.merge:
        for role in roles:
            measured = exporter.merge(role, given.out / role, onto=given.onto)
            print(f"{role}: {given.out / role}, merged into the {given.onto} base. {measured}")
    else:
        bases = {role: exporter.base(role, given.base) for role in roles}
        for role, base in bases.items():
            if given.push:
                refuse_local(base)
            exporter.write(role, given.out / role, base)
            print(f"{role}: {given.out / role}, an adapter of {base.path}")
    if given.push:
        for role, url in push({role: given.out / role for role in roles}, given.push).items():
            print(f"{role}: {url}")
