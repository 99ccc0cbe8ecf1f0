"""Write a base as a folder for use elsewhere: what its 4-bit weights mean as plain numbers, or its own files.

A 4-bit base is an approximation of the original one, and an adapter that was trained on it corrects for that. On the
original base the adapter computes something else. The dequantised base has the numbers of the training.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData, snapshot_download
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.policy.adapter_folder import NamedBase
from mgrpo_lightning.policy.base_files import folder_of, licence_of, source_of
from mgrpo_lightning.policy.identity import Identity, same_base
from mgrpo_lightning.policy.loading import (
    Base,
    Quantization,
    clear_load_error,
    load_base,
    load_config,
    nf4_settings,
)
from mgrpo_lightning.policy.weights_hash import weights_digest

ORIGIN_NAME = "mgrpo_base.json"
"""Name of the file that says which base an exported one was made from."""
_COPIED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.md", "LICENSE*", "NOTICE*")
"""Files of an original base that are copied: no code and no pickles."""


@dataclass(frozen=True)
class Origin:
    """Content of the file ``ORIGIN_NAME``."""

    base_model: dict[str, Any]
    """Name of the base, and the SHA-256 of its files; as in an adapter's identity."""
    quantization: str
    """``nf4``: the weights were quantised and dequantised. ``none``: the files are the original ones."""
    compute_dtype: str | None
    """Type of dequantised weights; None for original files, which are loaded in any type."""


def write_base(
    name: str,
    folder: Path,
    *,
    quantization: Quantization,
    compute_dtype: str,
    device: torch.device | str = "cpu",
) -> None:
    """Write a base into a folder that transformers loads without this package.

    Args:
        name: ``pocket``, a folder, or a hub name.
        folder: An empty folder.
        quantization: ``nf4`` writes the dequantised base, ``none`` copies the original files.
        compute_dtype: Name of the type of dequantised weights, such as ``float32``; that of the training.
        device: Device on which the base is quantised.

    Raises:
        ConfigurationError: The base cannot be loaded; see ``load_base``.
    """
    if quantization == "nf4":
        base = load_base(name, quantization="nf4", compute_dtype=getattr(torch, compute_dtype), device=device)
        dequantised(base).save_pretrained(str(folder))
        base.tokenizer.save_pretrained(str(folder))
        (folder / "README.md").write_text(_card(name, compute_dtype), encoding="utf-8")
    else:
        load_config(name)  # refuses code and pickles
        _copy(name, folder)
    digest = weights_digest(folder_of(name))
    origin = Origin({"name": name, "sha256": digest}, quantization, compute_dtype if quantization == "nf4" else None)
    (folder / ORIGIN_NAME).write_text(json.dumps(asdict(origin), indent=2, ensure_ascii=False), encoding="utf-8")


def dequantised(base: Base) -> PreTrainedModel:
    """Replace the 4-bit layers of a base without adapters by plain linear layers of the same numbers.

    Returns:
        The model of the base, changed in place. A base without 4-bit layers stays as it is.
    """
    model = base.model
    if getattr(model, "is_loaded_in_4bit", False):
        model.dequantize(dtype=model.dtype)
        vars(model)["is_loaded_in_4bit"] = False
        model.requires_grad_(False)
    return model


def exported_base(path: str, identity: Identity) -> NamedBase:
    """The base in a folder that ``write_base`` wrote, as the base that an adapter names.

    Args:
        path: The folder, or its hub name after an upload.
        identity: Identity of the adapter.

    Raises:
        ConfigurationError: ``write_base`` did not write the folder, or the adapter was trained on another base.
    """
    origin = _origin(path)
    base, quantization, dtype = (identity[part] for part in ("base_model", "quantization", "compute_dtype"))
    plain = origin.quantization == "none"
    as_trained = (origin.quantization, origin.compute_dtype) == (quantization, dtype)
    if not same_base(origin.base_model, base) or not (plain or as_trained):
        made = ", ".join(filter(None, (str(origin.base_model.get("name")), origin.quantization, origin.compute_dtype)))
        raise ConfigurationError(
            f"the base in {path} was made from another one ({made}) than the adapter was trained on "
            f"({base['name']}, {quantization}, {dtype}).",
            hint=f"make it with `mgrpo export-base {base['name']} --quantization {quantization} "
            f"--compute_dtype {dtype} --out DIR`.",
        )
    load: dict[str, Any] = {"dtype": dtype}
    if plain and quantization == "nf4":
        load["quantization_config"] = nf4_settings(dtype)
    return NamedBase(path, None, load)


def _origin(path: str) -> Origin:
    try:
        found = cached_file(path, ORIGIN_NAME)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} has no {ORIGIN_NAME}, so it is not a base that this package wrote.",
            hint="give the folder that `mgrpo export-base` wrote, or its name on the hub.",
        ) from error
    try:
        return Origin(**json.loads(Path(str(found)).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{found} cannot be read: {error}.", hint="export the base again.") from error


def _copy(name: str, folder: Path) -> None:
    """Copy the files that transformers reads of a base, and its licence and card."""
    source = Path(source_of(name))
    if not source.is_dir():
        with clear_load_error(name):
            source = Path(snapshot_download(name, allow_patterns=list(_COPIED)))
    for path in source.iterdir():
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in _COPIED):
            shutil.copyfile(path, folder / path.name)


def _card(name: str, compute_dtype: str) -> str:
    hub = None if Path(source_of(name)).is_dir() else name
    head = ModelCardData(library_name="transformers", base_model=hub, license=licence_of(name)).to_yaml()
    settings = ", ".join(f"`{key}={value}`" for key, value in nf4_settings(compute_dtype).items())
    return f"""---
{head}
---

# {name}, dequantised

The weights of {name} as bitsandbytes rounds them to 4 bit ({settings}), stored as {compute_dtype}. An adapter that was
trained on the 4-bit base computes the same on this one. The licence is that of {name}.
"""
