"""``mgrpo export-base BASE``: write the base of an adapter as a folder that transformers loads without bitsandbytes.

The folder holds the numbers that the 4-bit weights stand for. An adapter that was trained on the 4-bit base computes
the same on it. With --quantization none, the original files are copied: the embedded model ``pocket`` is on no hub.

    mgrpo export-base pocket --out exported/base
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        "mgrpo export-base", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("base", help="pocket, a hub name or a folder: base_model of the team file")
    made.add_argument("--out", type=Path, required=True, help="folder to write")
    made.add_argument(
        "--quantization", choices=("nf4", "none"), default="nf4", help="model.quantization of the run; default: nf4"
    )
    made.add_argument(
        "--compute_dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="model.compute_dtype of the run; default: float32",
    )
    return made


def main(args: Sequence[str]) -> None:
    """Run ``mgrpo export-base``.

    Args:
        args: Command line after ``mgrpo export-base``.

    Raises:
        MgrpoError: The base cannot be loaded, or the folder cannot be written.
    """
    given = parser().parse_args(args)
    from mgrpo_lightning.commands.exporting import write_exported_base  # imports torch, which takes seconds

    write_exported_base(given.base, given.out, quantization=given.quantization, compute_dtype=given.compute_dtype)
    what = "dequantised from 4 bit" if given.quantization == "nf4" else "as it is"
    print(f"{given.base}, {what}: {given.out}")
