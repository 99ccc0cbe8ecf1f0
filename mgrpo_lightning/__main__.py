"""Make ``python -m mgrpo_lightning`` run the command ``mgrpo``."""

from mgrpo_lightning.commands.main import main

if __name__ == "__main__":
    main()
