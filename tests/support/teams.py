"""Teams of whole runs in processes: a tiny one that plays the toy task by chance, and the quickstart's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.team_file import write_team_file
from tests.support.tiny import make_speaking_model


@dataclass(frozen=True)
class Team:
    """The words of its command lines.

    Attributes:
        configs: Its files.
        tiny: Whether its tool can hang.
    """

    configs: Sequence[str]
    tiny: bool

    def command(self, subcommand: str, root: Path, name: str, *options: str) -> list[str]:
        """A command on a run.

        Args:
            subcommand: Such as ``fit``.
            root: Of the runs.
            name: Of the run.
            *options: More options.
        """
        files = [word for config in self.configs for word in ("--config", config)]
        return [
            *(subcommand, *files, f"--run.root={root}", f"--run.name={name}", "--trainer.enable_progress_bar=false"),
            *("--trainer.max_steps=3", "--trainer.num_sanity_val_steps=0"),
            *("--data.queries_per_step=2", "--data.rollouts_per_query=4", *options),
        ]

    def hanging(self, folder: Path, since: Path) -> list[str]:
        """Options under which the tool of the tiny team hangs until it is released; others' tools just go on.

        A run of the tiny team is over before a test could see how far it is.

        Args:
            folder: Of the test.
            since: A file from which on it hangs.
        """
        if not self.tiny:
            return []
        (folder / "hang").touch()
        task = "--data.task"
        return [f"{task}.folder={folder}", f"{task}.since={since}"]


def release(folder: Path) -> None:
    """Let tools go on.

    Args:
        folder: Of the test.
    """
    (folder / "hang").unlink(missing_ok=True)


def tiny_team(folder: Path) -> Team:
    """The one that plays the toy task, quantised and with a dense copy as the quickstart's is.

    Args:
        folder: For its model and its file.
    """
    path = write_team_file(folder, make_speaking_model(folder / "model"), objective="mgrpo", max_steps=3)
    content = yaml.safe_load(path.read_text())
    content["model"] |= {"quantization": "nf4", "compute_dtype": "float32", "dense_copy": True}
    content["data"]["task"]["class_path"] = "tests.support.hanging.HangingTask"
    path.write_text(yaml.safe_dump(content))
    return Team([str(path)], tiny=True)


QUICKSTART = Team(["configs/quickstart.yaml", "configs/debug/fast.yaml"], tiny=False)
