"""Read the config of a finished run back: for ``mgrpo replay`` and ``Team.from_run``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgrpo_lightning.commands.config_files import composed
from mgrpo_lightning.commands.fit import MgrpoCLI, make_cli
from mgrpo_lightning.commands.run_links import OF_A_COMMAND
from mgrpo_lightning.commands.yaml_text import dumped
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.store.layout import FOLDER


def cli_of(run: Path, settings: Sequence[str] = ()) -> MgrpoCLI:
    """Make the model, data module and trainer of a run from its saved config.

    Args:
        run: Folder of the run.
        settings: Changed settings, as options of ``mgrpo fit``.

    Raises:
        ConfigurationError: The folder is not a run, or a setting cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = dumped(saved_config(run))
        (plain := Path(folder) / "config.yaml").write_text(config, encoding="utf-8")
        return make_cli(["--config", str(plain), *settings], run=False)


def role_folders(run: Path) -> list[Path]:
    """The folders of the roles of a decoupled run; none for a run of one process.

    Args:
        run: Folder of the run.
    """
    return [path.parent for path in sorted(run.glob("*/config.yaml"))] if (run / FOLDER).is_dir() else []


def saved_config(run: Path) -> dict[str, Any]:
    """The resolved config that a fit saved, without the settings of its command line alone.

    Args:
        run: Folder of the run, or of one role of a decoupled run.

    Raises:
        ConfigurationError: The folder is not a run.
    """
    path = run / "config.yaml"
    try:
        path.stat()
    except OSError as error:
        roles = [str(folder) for folder in role_folders(run)]
        raise ConfigurationError(
            f"{run} is not a run folder: {error.strerror}: config.yaml.",
            hint=f"each role was trained in a folder of its own: give {' or '.join(roles)}."
            if roles
            else "give the folder that `mgrpo fit` wrote.",
        ) from error
    return {key: value for key, value in composed(["--config", str(path)]).items() if key not in OF_A_COMMAND}
