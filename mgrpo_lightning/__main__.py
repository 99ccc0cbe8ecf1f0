"""The command ``mgrpo``, also as ``python -m mgrpo_lightning``."""

from mgrpo_lightning.allocator import give_back_large_blocks


def main() -> None:
    """Entry point of the console script."""
    give_back_large_blocks()
    from mgrpo_lightning.cli import main as command  # imports torch, whose allocator is set up by now

    command()


if __name__ == "__main__":
    main()
