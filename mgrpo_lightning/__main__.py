"""``python -m mgrpo_lightning`` is the command ``mgrpo``."""

from mgrpo_lightning.cli import main

main()
