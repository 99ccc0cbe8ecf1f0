"""Write an adapter as a folder for use elsewhere: PEFT's files, tokenizer, chat template and identity.

The folder names the base that the adapter was trained on. A name of the hub is kept, with the commit. A local base is
named by its absolute path, so that PEFT finds it from any working directory of this machine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from mgrpo_lightning.policy.adapters import lora_config, peft_state
from mgrpo_lightning.policy.base_files import folder_of, source_of
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.identity import Identity, write_identity
from mgrpo_lightning.policy.loading import nf4_settings
from mgrpo_lightning.policy.peft_folder import WEIGHTS_NAME
from mgrpo_lightning.roles.config import AdapterConfig

TOKENIZER_FILES = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json")
"""Files that ``Chat.save`` writes."""


@dataclass(frozen=True)
class NamedBase:
    """The base that an exported adapter names."""

    path: str
    """A folder, or a hub name."""
    revision: str | None
    """Commit of a hub name; None: not known, or a folder."""
    load: Mapping[str, Any]
    """Arguments of ``from_pretrained`` with which it is the base of the training: ``dtype`` and, for NF4,
    ``quantization_config``."""

    @property
    def on_hub(self) -> bool:
        """Whether it has a hub name, so that it can be loaded on other machines."""
        return not Path(self.path).is_dir()


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter, and what an exported folder says about it."""

    role: str
    """The role that owns the adapter."""
    config: AdapterConfig
    state: Mapping[str, Tensor]
    """The parameters, by this package's parameter names."""
    identity: Identity
    chat: Chat
    updates: int
    """Number of optimizer updates."""


def named_base(identity: Identity) -> NamedBase:
    """The base of an identity, under the name by which transformers and PEFT find it on this machine.

    Raises:
        ConfigurationError: The base is the embedded model, and it is not installed.
    """
    name, dtype = identity["base_model"]["name"], identity["compute_dtype"]
    load = {"dtype": dtype}
    if identity["quantization"] == "nf4":
        load["quantization_config"] = nf4_settings(dtype)
    source, folder = source_of(name), folder_of(name)
    if Path(source).is_dir():
        return NamedBase(str(Path(source).absolute()), None, load)
    # The hub's cache keeps each commit in a folder of that name.
    in_cache = folder is not None and folder.parent.name == "snapshots"
    return NamedBase(name, folder.name if folder is not None and in_cache else None, load)


def write_adapter(adapter: TrainedAdapter, folder: Path, base: NamedBase, *, like: Path | None = None) -> None:
    """Write an adapter into a folder.

    Args:
        folder: Created if missing.
        base: The base that the folder names.
        like: An earlier export with the same tokenizer and template. Its tokenizer files are linked or copied, which
            is faster than to write them. None, or a folder that lacks one: they are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # PEFT itself would name the base by the path that it was loaded from.
    named = {"base_model_name_or_path": base.path, "revision": base.revision, "inference_mode": True}
    lora_config(adapter.config, **named).save_pretrained(str(folder))
    state = {path: value.contiguous().cpu() for path, value in peft_state(adapter.state).items()}
    # safetensors' save_file creates a file that only its owner can read, whatever the umask is.
    (folder / WEIGHTS_NAME).write_bytes(save(state, metadata={"format": "pt"}))
    write_identity(adapter.identity, folder)
    if like is None or not all((like / name).is_file() for name in TOKENIZER_FILES):
        adapter.chat.save(folder)
        return
    for name in TOKENIZER_FILES:
        try:
            os.link(like / name, folder / name)
        except OSError:  # some filesystems have no hard links
            shutil.copyfile(like / name, folder / name)
