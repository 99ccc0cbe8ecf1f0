"""What a server of ``tests.support.started`` has before it forks: imports of every command, pages of the Factbook.

It imports what ``python -m mgrpo_lightning`` does, in its order. No thread and no random number comes of it.
"""

import mgrpo_lightning.commands.run_command  # noqa: F401
from mgrpo_lightning.tasks.factbook.world import load_world

load_world()
