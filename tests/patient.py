"""``python -m tests.patient``: the command ``mgrpo`` with graces that suffice for a step on a busy machine."""

from mgrpo_lightning import guard, stopping
from mgrpo_lightning.__main__ import main

if __name__ == "__main__":
    stopping.GRACE, stopping.LAST, guard.KILL = 40.0, 45.0, 50.0
    main()
