"""What a server of ``tests.started`` has before it forks: the imports of every command, and the pages of the Factbook.

It imports what ``python -m mgrpo_lightning`` does, in its order. No thread and no random number comes of it.
"""

from mgrpo_lightning.allocator import give_back_large_blocks

give_back_large_blocks()

import mgrpo_lightning.cli  # noqa: E402, F401
from mgrpo_lightning.tasks.factbook.world import load_world  # noqa: E402

load_world()
