"""The command ``mgrpo``, also as ``python -m mgrpo_lightning``."""

import os
import sys

from mgrpo_lightning.allocator import give_back_large_blocks
from mgrpo_lightning.errors import MgrpoError


def main() -> None:
    """Entry point of the console script."""
    if os.getcwd() not in sys.path:  # `python -m` has it: an own tool or task beside the team file is found
        sys.path.append(os.getcwd())
    if sys.argv[1:2] in (["store"], ["launch"], ["view"]):  # these import no torch before they have answered
        try:
            if sys.argv[1] == "store":
                from mgrpo_lightning.store.status import main as tool
            elif sys.argv[1] == "view":
                from mgrpo_lightning.viewer.command import main as tool
            else:
                from mgrpo_lightning.launch import main as tool
            tool(sys.argv[2:])
        except MgrpoError as error:
            print(f"mgrpo: error: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        return
    give_back_large_blocks()
    from mgrpo_lightning.cli import main as command  # imports torch, whose allocator is set up by now

    command()


if __name__ == "__main__":
    main()
