"""``python -m tests.support.patient``: the command ``mgrpo`` with graces that suffice for a step on a busy machine."""

from mgrpo_lightning.commands.main import main
from mgrpo_lightning.process import guard, stopping

if __name__ == "__main__":
    stopping.GRACE, stopping.LAST, guard.KILL = 40.0, 45.0, 50.0
    main()
