"""Find a base's files without torch or download: the embedded model ``pocket``, a folder, or the hub's cache."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import yaml
from huggingface_hub import metadata_load, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from mgrpo_lightning.errors import ConfigurationError


def source_of(name: str) -> str:
    """The folder or hub name that transformers must load for a base's name.

    Args:
        name: ``pocket``, a folder, or a hub name.

    Raises:
        ConfigurationError: The embedded model is not installed.
    """
    if name != "pocket":
        return name
    folder = Path(str(files("mgrpo_lightning.pocket"))) / "weights"
    if not (folder / "config.json").is_file():
        raise ConfigurationError(
            "base_model 'pocket': the embedded model is not in this installation.",
            hint="reinstall the package, or build it with `make pocket`.",
        )
    return str(folder)


def folder_of(name: str) -> Path | None:
    """The folder with a base's files on this machine; None if there is none. Downloads nothing.

    Args:
        name: ``pocket``, a folder, or a hub name.

    Raises:
        ConfigurationError: The embedded model is not installed.
    """
    if (folder := Path(source_of(name))).is_dir():
        return folder
    try:
        found = try_to_load_from_cache(name, "tokenizer_config.json")
    except HFValidationError:  # not a valid hub name, so it is the path of a missing folder
        return None
    return Path(found).parent if isinstance(found, str) else None


def licence_of(name: str) -> str | None:
    """The licence that the card of a base states, as the hub writes it, such as ``apache-2.0``; None if unknown.

    Only files on this machine are read.

    Args:
        name: ``pocket``, a folder, or a hub name.
    """
    if name == "pocket":
        return "apache-2.0"
    folder = folder_of(name)
    if folder is None or not (card := folder / "README.md").is_file():
        return None
    try:
        stated = (metadata_load(card) or {}).get("license")
    except (yaml.YAMLError, ValueError):  # a card that is not well-formed states nothing
        return None
    return None if stated is None else str(stated)
